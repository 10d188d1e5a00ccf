// SPDX-License-Identifier: Apache-2.0
//
// app.js - puts the parts together. Reading order: tree.js (the data), wire.js (the server), chat.js (what happens),
// message.js and markdown.js (what is seen), then the parts around them.
import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { $, copyText } from './dom.js';
import { Health } from './health.js';
import { listenForKeys } from './keys.js';
import { Library } from './library.js';
import { Meter } from './meter.js';
import { Models } from './models.js';
import { banner, toast } from './notices.js';
import { Panel } from './panel.js';
import { exportJson, exportMarkdown, importFile } from './portable.js';
import { Sidebar } from './sidebar.js';

const library = new Library((id, elsewhere) => onLibrary(id, elsewhere));
const meter = new Meter(() => ({
    conv: chat.conv, draft: composer.text(), files: composer.files, window: models.window(),
}));
const models = new Models(() => meter.update());
const health = new Health(() => refreshModels(), (status) => {
    $('status').dataset.status = status;
    $('status').setAttribute('aria-label', status === 'ok' ? 'Server ready' : `Server: ${status}`);
});
const panel = new Panel({
    system: (text) => { if (chat.conv) { chat.conv.system = text; library.putSoon(chat.conv); } },
    key: () => refreshModels(),
});
const chat = new Chat(library, {
    changed: onChat, unreachable: () => health.check(), wantsKey: askForKey,
});
const composer = new Composer({
    send: (text, files) => chat.send(text, files), stop: () => chat.stop(), busy: () => chat.isBusy(),
    editLast: () => chat.editLast(), changed: () => meter.update(),
});
const sidebar = new Sidebar(library, {
    open: openConversation, current: () => chat.conv?.id, busy: (id) => chat.isBusy(id), stop: (id) => chat.stop(id),
});

/* elsewhere: another tab changed it, so what is on screen may be old. */
function onLibrary(id, elsewhere = false) {
    sidebar.draw();
    if (id !== chat.conv?.id) return;
    if (elsewhere) chat.open(id);
    else drawTitle();
}

function onChat() {
    const hash = chat.conv ? `#${chat.conv.id}` : '';
    if (location.hash !== hash) history.pushState(null, '', hash || location.pathname);
    if (chat.conv) $('s-system').value = chat.conv.system;
    for (const id of ['export-json', 'export-markdown']) $(id).disabled = !chat.conv;
    drawTitle();
    composer.refresh();
    sidebar.draw();
    meter.update();
}

function drawTitle() {
    document.title = chat.conv?.title ? `${chat.conv.title} – squish` : 'squish';
}

function openConversation(id) {
    chat.open(id);
    composer.focus();
}

function askForKey() {
    banner('This server wants an API key.', 'warn', { label: 'Enter key', run: () => panel.open('s-key') });
}

async function refreshModels() {
    try {
        await models.refresh();
        if ($('banner').querySelector('button')) banner(''); // the key was right
    } catch (e) {
        if (e.status === 401) askForKey();
        else if (e.code !== 'unreachable') toast(e.message);
    }
}

async function copyLast() {
    const text = chat.lastAnswer();
    if (text) toast((await copyText(text)) ? 'Copied the last answer' : 'This browser did not let the page copy');
}

async function importFiles(files) {
    for (const file of files) {
        try {
            const all = await importFile(file);
            for (const conv of all) library.put(conv);
            toast(`Imported ${all.length} conversation${all.length === 1 ? '' : 's'}`);
            if (all.length === 1) openConversation(all[0].id);
        } catch (e) {
            toast(e.message);
        }
    }
}

function wireButtons() {
    $('new').addEventListener('click', () => sidebar.open(null));
    $('export-json').addEventListener('click', () => exportJson([chat.conv]));
    $('export-markdown').addEventListener('click', () => exportMarkdown(chat.conv));
    $('export-all').addEventListener('click', () => exportJson(library.find('')));
    $('import').addEventListener('click', () => $('import-file').click());
    $('import-file').addEventListener('change', async () => {
        await importFiles([...$('import-file').files]);
        $('import-file').value = '';
    });
    for (const dialog of document.querySelectorAll('dialog')) {
        dialog.querySelector('.dialog-close').addEventListener('click', () => dialog.close());
        // A click on the backdrop hits the dialog itself, one on its content does not.
        dialog.addEventListener('click', (e) => { if (e.target === dialog) dialog.close(); });
    }
    for (const button of document.querySelectorAll('[data-prompt]')) {
        button.addEventListener('click', () => composer.suggest(button.dataset.prompt));
    }
    $('theme').addEventListener('click', () => {
        const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
        window.squishTheme.set(next);
        for (const radio of document.querySelectorAll('[name=theme]')) radio.checked = radio.value === next;
    });
}

function search() {
    sidebar.toggle(true);
    $('search').focus();
    $('search').select();
}

async function start() {
    wireButtons();
    listenForKeys({
        create: () => sidebar.open(null), regenerate: () => chat.regenerateLast(), copyLast, search,
        focusBox: () => composer.focus(), sidebar: () => sidebar.toggle(), settings: () => panel.open(),
        stop: () => chat.stop(),
    });
    library.isBusy = (id) => chat.isBusy(id);
    library.failed = (e) => toast(`The browser did not keep a conversation: ${e.message}`);
    const kept = await library.open();
    if (!kept) toast('This browser keeps nothing for this page: a reload forgets the conversations');
    chat.open(location.hash.slice(1));
    window.addEventListener('hashchange', () => {
        if (location.hash.slice(1) !== (chat.conv?.id ?? '')) chat.open(location.hash.slice(1));
    });
    composer.changed();
    composer.focus();
    document.body.classList.remove('starting');
    refreshModels();
    health.check();
}

start();
