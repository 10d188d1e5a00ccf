// SPDX-License-Identifier: Apache-2.0
//
// library.js - all conversations of this browser: one object each for the life of the page, written to the store.
//
// The object in the map is the one an answer grows into, also while another conversation is on screen.
import { loadAll, loadOne, onOtherTab, openStore, remove, save } from './store.js';
import { newestUnder, sentText } from './tree.js';

const SAVE_EVERY_MS = 1000;

export class Library {
    constructor(changed) {
        this.all = new Map();
        this.changed = changed;
        this.waiting = new Map(); // id -> timer of a save to come
    }

    async open() {
        const kept = await openStore();
        for (const conv of await loadAll()) this.all.set(conv.id, conv);
        onOtherTab((id) => this.reload(id));
        // A growing answer is written once a second; the last part must not be lost with the tab.
        window.addEventListener('pagehide', () => this.flush());
        document.addEventListener('visibilitychange', () => document.hidden && this.flush());
        return kept;
    }

    /* Another tab wrote or removed this one. While an answer grows here, what is here stands. */
    async reload(id) {
        if (this.isBusy?.(id)) return;
        const fresh = await loadOne(id);
        const old = this.all.get(id);
        if (fresh && old) Object.assign(old, fresh); // in place: others hold this object
        else if (fresh) this.all.set(id, fresh);
        else this.all.delete(id);
        this.changed(id, true);
    }

    get(id) { return this.all.get(id); }

    put(conv) {
        this.all.set(conv.id, conv);
        clearTimeout(this.waiting.get(conv.id));
        this.waiting.delete(conv.id);
        save(conv).catch((e) => this.failed?.(e));
        this.changed(conv.id);
    }

    putSoon(conv) {
        if (this.waiting.has(conv.id)) return;
        this.waiting.set(conv.id, setTimeout(() => {
            this.waiting.delete(conv.id);
            if (this.all.has(conv.id)) save(conv).catch((e) => this.failed?.(e));
        }, SAVE_EVERY_MS));
    }

    flush() {
        for (const [id, timer] of this.waiting) {
            clearTimeout(timer);
            if (this.all.has(id)) save(this.all.get(id)).catch(() => {});
        }
        this.waiting.clear();
    }

    delete(id) {
        clearTimeout(this.waiting.get(id));
        this.waiting.delete(id);
        this.all.delete(id);
        remove(id).catch((e) => this.failed?.(e));
        this.changed(id);
    }

    rename(conv, title) {
        conv.title = title;
        this.put(conv);
    }

    /* Newest first; every word of the query must be somewhere in the title or in a message. */
    find(query) {
        const words = query.toLowerCase().split(/\s+/).filter(Boolean);
        const fits = (conv) => {
            if (words.length === 0) return true;
            const text = [conv.title, ...Object.values(conv.nodes).map(sentText)].join('\n').toLowerCase();
            return words.every((w) => text.includes(w));
        };
        return [...this.all.values()].filter(fits).sort((a, b) => b.updated - a.updated);
    }

    /* Moves to another branch: its newest end. */
    turnTo(conv, node) {
        conv.leaf = newestUnder(conv, node.id);
        this.put(conv);
    }
}
