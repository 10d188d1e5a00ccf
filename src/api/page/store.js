// SPDX-License-Identifier: Apache-2.0
//
// store.js - conversations in this browser's IndexedDB, one record each; nothing is sent anywhere.
//
// Where IndexedDB is refused (some private windows) the page still works and `isKept` says that a reload forgets.
// Other tabs are told through a BroadcastChannel which record changed.

const NAME = 'squish';
const TABLE = 'conversations';
let db = null;
const channel = 'BroadcastChannel' in window ? new BroadcastChannel('squish-conversations') : null;

function promised(request) {
    return new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
}

function table(mode) {
    return db.transaction(TABLE, mode).objectStore(TABLE);
}

export async function openStore() {
    try {
        const request = indexedDB.open(NAME, 1);
        request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: 'id' });
        db = await promised(request);
        db.onversionchange = () => { db.close(); db = null; };
        navigator.storage?.persist?.().catch(() => {});
    } catch {
        db = null;
    }
    return db !== null;
}

export const isKept = () => db !== null;
export const loadAll = async () => (db ? promised(table('readonly').getAll()) : []);
export const loadOne = async (id) => (db ? promised(table('readonly').get(id)) : undefined);

export async function save(conversation) {
    if (!db) return;
    await promised(table('readwrite').put(conversation));
    channel?.postMessage(conversation.id);
}

export async function remove(id) {
    if (!db) return;
    await promised(table('readwrite').delete(id));
    channel?.postMessage(id);
}

export function onOtherTab(changed) {
    channel?.addEventListener('message', (e) => changed(e.data));
}
