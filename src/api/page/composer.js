// SPDX-License-Identifier: Apache-2.0
//
// composer.js - the message box: typing, attaching text files (button, drop, paste), sending and stopping.
import { $, el, icon, iconButton, numbers } from './dom.js';
import { toast } from './notices.js';

const FILE_MAX = 2 * 1024 * 1024; // bytes of one file; a window of 128k tokens holds about a quarter of that
const FILES_MAX = 20;

/* The text of a file, or an Error that says why it is none. */
async function readText(file) {
    if (file.size > FILE_MAX) {
        throw new Error(`${file.name}: ${numbers.format(file.size)} bytes, at most ${numbers.format(FILE_MAX)}`);
    }
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (bytes.includes(0)) throw new Error(`${file.name} is not a text file`);
    try {
        return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
        throw new Error(`${file.name} is not text in UTF-8`);
    }
}

export class Composer {
    /* actions: send(text, files) -> whether it was taken; stop(); busy(); changed() */
    constructor(actions) {
        this.actions = actions;
        this.files = [];
        this.box = $('box');
        $('composer').addEventListener('submit', (e) => { e.preventDefault(); this.submit(); });
        this.box.addEventListener('keydown', (e) => this.onKey(e));
        this.box.addEventListener('input', () => this.changed());
        this.box.addEventListener('paste', (e) => this.onPaste(e));
        $('attach').addEventListener('click', () => $('file').click());
        $('file').addEventListener('change', () => { this.attach($('file').files); $('file').value = ''; });
        this.listenForDrops();
    }

    text() { return this.box.value; }
    focus() { this.box.focus(); }

    suggest(text) {
        this.box.value = text;
        this.changed();
        this.focus();
    }

    /* Enter sends; Shift+Enter breaks the line; an Enter that ends an input method's word does neither. */
    onKey(e) {
        if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
            e.preventDefault();
            if (!this.actions.busy()) this.submit();
        }
        if (e.key === 'ArrowUp' && this.box.value === '') {
            e.preventDefault();
            this.actions.editLast();
        }
    }

    onPaste(e) {
        if (!e.clipboardData?.files.length) return;
        e.preventDefault();
        this.attach(e.clipboardData.files);
    }

    submit() {
        if (this.actions.busy()) { this.actions.stop(); return; }
        const text = this.box.value.trim();
        if (!text && this.files.length === 0) return;
        if (!this.actions.send(text, this.files)) return;
        this.box.value = '';
        this.files = [];
        this.drawFiles();
        this.changed();
    }

    changed() {
        // Height follows the text up to the maximum in the style sheet.
        this.box.style.height = 'auto';
        this.box.style.height = `${this.box.scrollHeight}px`;
        this.refresh();
        this.actions.changed();
    }

    refresh() {
        const busy = this.actions.busy();
        const button = $('send');
        button.replaceChildren(icon(busy ? 'stop' : 'send'));
        button.setAttribute('aria-label', busy ? 'Stop the answer' : 'Send message');
        button.title = busy ? 'Stop (Esc)' : 'Send (Enter)';
        button.disabled = !busy && !this.box.value.trim() && this.files.length === 0;
        button.classList.toggle('stop', busy);
    }

    async attach(list) {
        for (const file of [...list]) { // a copy: the input is emptied meanwhile
            if (this.files.length >= FILES_MAX) { toast(`At most ${FILES_MAX} files in one message`); break; }
            try {
                this.files.push({ name: file.name, text: await readText(file) });
            } catch (e) {
                toast(e.message);
            }
        }
        this.drawFiles();
        this.changed();
        this.focus();
    }

    drawFiles() {
        $('files').hidden = this.files.length === 0;
        $('files').replaceChildren(...this.files.map((f, i) => el('li', {}, icon('file'), el('span', {}, f.name),
            iconButton('close', `Remove ${f.name}`, () => {
                this.files.splice(i, 1);
                this.drawFiles();
                this.changed();
                this.focus();
            }))));
    }

    /* Drops anywhere on the page; a file that missed the box must not replace the page. */
    listenForDrops() {
        let depth = 0; // dragenter and dragleave come for every element passed
        const mark = (d) => { depth = Math.max(0, d); $('drop').hidden = depth === 0; };
        const hasFiles = (e) => e.dataTransfer?.types.includes('Files');
        document.addEventListener('dragenter', (e) => { if (hasFiles(e)) { e.preventDefault(); mark(depth + 1); } });
        document.addEventListener('dragleave', (e) => { if (hasFiles(e)) mark(depth - 1); });
        document.addEventListener('dragover', (e) => { if (hasFiles(e)) e.preventDefault(); });
        document.addEventListener('drop', (e) => {
            if (!hasFiles(e)) return;
            e.preventDefault();
            mark(0);
            this.attach(e.dataTransfer.files);
        });
    }
}
