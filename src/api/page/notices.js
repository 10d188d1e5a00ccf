// SPDX-License-Identifier: Apache-2.0
//
// notices.js - what the page tells beside the conversation: a banner that stays, toasts that go, and the words a
// screen reader hears while an answer grows.
import { $, el, iconButton } from './dom.js';

const TOAST_MS = 8000;

/* One line at the top; empty text takes it away. kind: 'warn' or 'good'. */
export function banner(text, kind = 'warn', action = null) {
    const root = $('banner');
    root.replaceChildren();
    root.hidden = !text;
    root.dataset.kind = kind;
    if (!text) return;
    root.append(el('span', {}, text));
    if (action) root.append(el('button', { type: 'button', class: 'link-button', onclick: action.run }, action.label));
}

/* A toast with an optional action (undo). It waits while the pointer or the focus is on it. */
export function toast(text, action = null) {
    const box = el('div', { class: 'toast' }, el('span', {}, text));
    let timer = 0;
    const close = () => { clearTimeout(timer); box.remove(); };
    const wait = () => { clearTimeout(timer); timer = setTimeout(close, TOAST_MS); };
    if (action) {
        box.append(el('button', {
            type: 'button', class: 'link-button', onclick: () => { close(); action.run(); },
        }, action.label));
    }
    box.append(iconButton('close', 'Dismiss', close));
    for (const name of ['pointerenter', 'focusin']) box.addEventListener(name, () => clearTimeout(timer));
    for (const name of ['pointerleave', 'focusout']) box.addEventListener(name, wait);
    const root = $('toasts');
    while (root.children.length > 2) root.firstChild.remove();
    root.append(box);
    wait();
}

export function announce(text) {
    const root = $('live');
    while (root.children.length > 3) root.firstChild.remove();
    root.append(el('p', {}, text));
}

/* Reads a growing answer sentence by sentence: a live region that changed with every token would be babble. */
export class Reader {
    constructor() { this.read = 0; }

    grow(text) {
        const fresh = text.slice(this.read);
        const ends = [...fresh.matchAll(/[.!?:;。！？]\s|\n/g)];
        if (ends.length === 0) return;
        const end = ends[ends.length - 1].index + 1;
        if (fresh.slice(0, end).trim()) announce(fresh.slice(0, end).trim());
        this.read += end;
    }

    finish(text, closing) {
        const rest = text.slice(this.read).trim();
        if (rest) announce(rest);
        announce(closing);
        this.read = text.length;
    }
}
