// SPDX-License-Identifier: Apache-2.0
//
// log.js - the conversation on screen: articles in order, kept at the end while an answer grows.
import { $, el } from './dom.js';
import { AnswerMessage, ToolMessage, UserMessage } from './message.js';
import { path } from './tree.js';

const NEAR_END = 90; // pixels from the end that still count as "reading along"

function make(node, actions) {
    if (node.role === 'user') return new UserMessage(node, actions);
    if (node.role === 'tool') return new ToolMessage(node, actions);
    return new AnswerMessage(node, actions);
}

export class Log {
    constructor(actions) {
        this.actions = actions;
        this.root = $('log');
        this.inner = $('messages');
        this.shown = new Map(); // node id -> message
        this.follow = true;
        this.root.addEventListener('scroll', () => this.noteScroll(), { passive: true });
        $('to-end').addEventListener('click', () => this.toEnd());
    }

    /* Shows the current path of a conversation; null shows the welcome. Articles of messages that stay are kept, with
     * what the reader opened in them. stay: do not go to the end. */
    show(conv, stay = false) {
        const nodes = conv ? path(conv) : [];
        const before = this.shown;
        this.shown = new Map(nodes.map((n) => [n.id, this.kept(before.get(n.id), n) ?? make(n, this.actions)]));
        this.inner.replaceChildren(...[...this.shown.values()].map((m) => m.article));
        $('welcome').hidden = nodes.length > 0;
        if (stay) this.noteScroll();
        else this.toEnd();
    }

    kept(message, node) {
        if (message?.node !== node) return null;
        message.refresh();
        return message;
    }

    append(node) {
        const message = make(node, this.actions);
        this.shown.set(node.id, message);
        this.inner.append(message.article);
        $('welcome').hidden = true;
        this.toEnd();
    }

    refresh(node) {
        this.shown.get(node.id)?.refresh();
        if (this.follow) this.toEnd();
        else this.noteScroll();
    }

    edit(node) { this.shown.get(node.id)?.edit?.(); }

    noteScroll() {
        const left = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight;
        this.follow = left < NEAR_END;
        $('to-end').hidden = this.follow;
    }

    toEnd() {
        this.root.scrollTop = this.root.scrollHeight;
        this.follow = true;
        $('to-end').hidden = true;
    }
}
