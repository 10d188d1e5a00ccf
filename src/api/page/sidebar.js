// SPDX-License-Identifier: Apache-2.0
//
// sidebar.js - the list of conversations: grouped by age, searched, renamed in place, deleted with undo.
import { $, debounce, el, iconButton } from './dom.js';
import { toast } from './notices.js';

const DAY = 24 * 3600 * 1000;

function groupOf(time) {
    const midnight = new Date().setHours(0, 0, 0, 0);
    if (time >= midnight) return 'Today';
    if (time >= midnight - DAY) return 'Yesterday';
    if (time >= midnight - 7 * DAY) return 'Last 7 days';
    return new Date(time).toLocaleDateString('en', { month: 'long', year: 'numeric' });
}

export class Sidebar {
    /* actions: open(id), created() after a deletion of the shown one; current(): id; busy(id): answering now */
    constructor(conversations, actions) {
        this.conversations = conversations;
        this.actions = actions;
        $('search').addEventListener('input', debounce(() => this.draw(), 120));
        $('menu').addEventListener('click', () => this.toggle());
        $('sidebar-close').addEventListener('click', () => this.toggle(false));
        $('shade').addEventListener('click', () => this.toggle(false));
    }

    /* On a wide window the list is shown or hidden; on a narrow one it slides over the conversation. */
    toggle(open = !this.isOpen()) {
        document.body.classList.toggle('sidebar-open', open);
        document.body.classList.toggle('sidebar-hidden', !open);
        $('menu').setAttribute('aria-expanded', String(open));
        if (open && this.isNarrow()) $('search').focus();
        if (!open && $('sidebar').contains(document.activeElement)) $('menu').focus();
    }

    isNarrow() { return window.matchMedia('(max-width: 800px)').matches; }

    isOpen() {
        return this.isNarrow() ? document.body.classList.contains('sidebar-open')
            : !document.body.classList.contains('sidebar-hidden');
    }

    draw() {
        if (this.editing) return;
        const query = $('search').value;
        const found = this.conversations.find(query);
        const list = $('list');
        const items = [];
        let group = '';
        for (const conv of found) {
            const g = groupOf(conv.updated);
            if (g !== group) items.push(el('li', { class: 'group' }, g));
            group = g;
            items.push(this.item(conv));
        }
        if (found.length === 0) {
            const why = query ? 'Nothing found' : 'Your conversations will be listed here.';
            items.push(el('li', { class: 'empty' }, why));
        }
        list.replaceChildren(...items);
    }

    item(conv) {
        const title = conv.title || 'New conversation';
        const open = el('button', {
            type: 'button', class: 'open', title, onclick: () => this.open(conv.id),
            'aria-current': conv.id === this.actions.current() ? 'page' : null,
        }, title, this.actions.busy(conv.id) ? el('span', { class: 'busy-dot', title: 'answering' }) : null);
        const li = el('li', { class: 'item', 'data-id': conv.id }, open,
            iconButton('edit', `Rename ${title}`, () => this.rename(conv, li)),
            iconButton('trash', `Delete ${title}`, () => this.remove(conv)));
        return li;
    }

    open(id) {
        this.actions.open(id);
        if (this.isNarrow()) this.toggle(false);
    }

    rename(conv, li) {
        const input = el('input', { class: 'rename', 'aria-label': 'New title', maxlength: '200' });
        input.value = conv.title;
        this.editing = true;
        const close = (keep) => {
            if (!this.editing) return;
            this.editing = false;
            if (keep && input.value.trim())
                this.conversations.rename(conv, input.value.trim());
            else this.draw();
            document.querySelector(`#list [data-id="${CSS.escape(conv.id)}"] .open`)?.focus();
        };
        input.addEventListener('keydown', (e) => {
            if (e.key === 'Enter') { e.preventDefault(); close(true); } // or it would press the button that has the focus now
            if (e.key === 'Escape') { e.stopPropagation(); close(false); }
        });
        input.addEventListener('blur', () => close(true));
        li.replaceChildren(input);
        input.focus();
        input.select();
    }

    remove(conv) {
        const shown = conv.id === this.actions.current();
        this.actions.stop(conv.id);
        this.conversations.delete(conv.id);
        if (shown) this.actions.open(null);
        toast(`Deleted "${conv.title || 'New conversation'}"`, {
            label : 'Undo',
            run : () => {
                this.conversations.put(conv);
                if (shown) this.actions.open(conv.id);
            },
        });
    }
}
