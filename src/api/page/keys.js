// SPDX-License-Identifier: Apache-2.0
//
// keys.js - keyboard shortcuts and the dialog that lists them: one table for both.
import { $, el } from './dom.js';

/* code is the place of the key, so the table holds on every keyboard layout; Alt+letter types signs on some. */
const SHORTCUTS = [
    { keys: 'Enter', text: 'Send the message' },
    { keys: 'Shift + Enter', text: 'New line' },
    { keys: 'Arrow up', text: 'In an empty message box: edit your last message' },
    { keys: 'Esc', text: 'Stop the answer; close a dialog' },
    { keys: 'Alt + N', code: 'KeyN', text: 'New conversation', run: 'create' },
    { keys: 'Alt + R', code: 'KeyR', text: 'Regenerate the last answer', run: 'regenerate' },
    { keys: 'Alt + C', code: 'KeyC', text: 'Copy the last answer', run: 'copyLast' },
    { keys: 'Alt + M', code: 'KeyM', text: 'Go to the message box', run: 'focusBox' },
    { keys: 'Alt + B', code: 'KeyB', text: 'Show or hide the list of conversations', run: 'sidebar' },
    { keys: 'Alt + S', code: 'KeyS', text: 'Settings', run: 'settings' },
    { keys: 'Ctrl + K', text: 'Search conversations' },
    { keys: '?', text: 'This list, when no field is focused' },
];

const inField = (target) => target.closest?.('input, textarea, select, [contenteditable]') !== null;

function help() {
    $('help').showModal();
}

/* actions: one function for each `run` above, search() and stop() */
export function listenForKeys(actions) {
    const keys = (s) => s.keys.split(' + ').flatMap((k, i) => [i ? ' + ' : '', el('kbd', {}, k)]);
    $('help-keys').append(...SHORTCUTS.flatMap((s) => [el('dt', {}, ...keys(s)), el('dd', {}, s.text)]));
    $('help-open').addEventListener('click', help);
    document.addEventListener('keydown', (e) => {
        if (document.querySelector('dialog[open]')) return; // Esc and Tab belong to the dialog
        const run = () => { e.preventDefault(); return true; };
        if (e.key === 'Escape') actions.stop();
        else if ((e.ctrlKey || e.metaKey) && e.code === 'KeyK' && run()) actions.search();
        else if (e.key === '?' && !inField(e.target) && run()) help();
        else if (e.altKey && !e.ctrlKey && !e.metaKey) {
            const hit = SHORTCUTS.find((s) => s.code === e.code);
            if (hit && run()) actions[hit.run]();
        }
    });
}
