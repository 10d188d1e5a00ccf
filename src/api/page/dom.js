// SPDX-License-Identifier: Apache-2.0
//
// dom.js - building elements without markup strings.
//
// Nothing in this page assigns innerHTML: text goes in as text nodes, so whatever a model, a file name or a server
// message contains stays text. The one place where markup enters is markdown.js, behind DOMPurify.

export const $ = (id) => document.getElementById(id);

/* el('button', {class: 'x', onclick: f, 'aria-label': 'Copy'}, 'text', childElement)
 * A property whose name begins with "on" is a listener; true and false set and leave out bare attributes. */
export function el(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
        if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
        else if (value === true) node.setAttribute(name, '');
        else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
    return node;
}

/* One of the symbols at the end of index.html. */
export function icon(name) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
    svg.setAttribute('class', 'icon');
    svg.setAttribute('aria-hidden', 'true');
    use.setAttribute('href', `#i-${name}`);
    svg.append(use);
    return svg;
}

export function iconButton(name, label, onclick, props = {}) {
    return el('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props },
        icon(name));
}

export function debounce(fn, ms) {
    let timer = 0;
    return (...args) => {
        clearTimeout(timer);
        timer = setTimeout(() => fn(...args), ms);
    };
}

export function uid() {
    const bytes = crypto.getRandomValues(new Uint8Array(9));
    return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_');
}

/* navigator.clipboard exists on secure origins only; over plain http from another machine the old way still works. */
export async function copyText(text) {
    if (navigator.clipboard) {
        try { await navigator.clipboard.writeText(text); return true; } catch { /* not permitted: try the old way */ }
    }
    const area = el('textarea', { class: 'visually-hidden', 'aria-hidden': 'true' });
    const before = document.activeElement;
    area.value = text;
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    before?.focus();
    return done;
}

export function download(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = el('a', { href: url, download: name, class: 'visually-hidden' });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const numbers = new Intl.NumberFormat('en');
