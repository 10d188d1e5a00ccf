// SPDX-License-Identifier: Apache-2.0
//
// tree.js - a conversation is a tree of messages; what is shown is the path from the root to `leaf`.
//
//   user -- assistant -- user ---- assistant      editing a message adds a sibling, never changes the old one;
//        \- assistant \- user' --- assistant      regenerating adds a sibling of the answer
//
// Pure data, no DOM: {id, title, created, updated, system, leaf, nodes: {id: node}} and nodes
// {id, parent, seq, at, role, content, reasoning?, calls?, files?, callId?, stats?, finish?, error?, model?}.
import { uid } from './dom.js';

const TITLE_LENGTH = 60;

export function newConversation(system) {
    const now = Date.now();
    return { id: uid(), title: '', created: now, updated: now, system, leaf: null, nodes: {} };
}

export function addNode(conv, parent, fields) {
    const seq = Object.values(conv.nodes).reduce((top, n) => Math.max(top, n.seq + 1), 0);
    const node = { id: uid(), parent, seq, at: Date.now(), ...fields };
    conv.nodes[node.id] = node;
    conv.leaf = node.id;
    conv.updated = node.at;
    if (!conv.title && node.role === 'user') conv.title = titleFrom(node);
    return node;
}

function titleFrom(node) {
    const text = node.content.trim().replace(/\s+/g, ' ') || node.files?.[0]?.name || 'Conversation';
    return text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH - 1)}…` : text;
}

export function pathTo(conv, id) {
    const nodes = [];
    for (let at = id; at && conv.nodes[at]; at = conv.nodes[at].parent) nodes.push(conv.nodes[at]);
    return nodes.reverse();
}

export const path = (conv) => pathTo(conv, conv.leaf);

export function siblings(conv, node) {
    return Object.values(conv.nodes).filter((n) => n.parent === node.parent).sort((a, b) => a.seq - b.seq);
}

/* The newest message under a node: where one lands when switching to another branch. */
export function newestUnder(conv, id) {
    for (;;) {
        const children = Object.values(conv.nodes).filter((n) => n.parent === id);
        if (children.length === 0) return id;
        id = children.reduce((a, b) => (b.seq > a.seq ? b : a)).id;
    }
}

/* A fence longer than any run of backquotes in the file, so that the file cannot end its own block. */
function fenced(file) {
    const longest = (file.text.match(/`+/g) ?? []).reduce((top, run) => Math.max(top, run.length), 2);
    const fence = '`'.repeat(longest + 1);
    return `File ${file.name}:\n${fence}\n${file.text}\n${fence}`;
}

export function sentText(node) {
    return [...(node.files ?? []).map(fenced), node.content].filter(Boolean).join('\n\n');
}

function toMessage(node) {
    if (node.role === 'tool') return { role: 'tool', tool_call_id: node.callId, content: node.content };
    if (node.role === 'user') return { role: 'user', content: sentText(node) };
    const message = { role: 'assistant', content: node.content };
    if (node.calls?.length) {
        message.content = node.content || null;
        message.tool_calls = node.calls.map((c) => ({
            id: c.id, type: 'function', function: { name: c.name, arguments: c.arguments },
        }));
    }
    return message;
}

/* What the server gets: the path to `id`, without answers that brought nothing. */
export function toMessages(conv, id = conv.leaf) {
    const told = pathTo(conv, id).filter((n) => n.role !== 'assistant' || n.content || n.calls?.length);
    const system = conv.system.trim() ? [{ role: 'system', content: conv.system }] : [];
    return [...system, ...told.map(toMessage)];
}

/* Calls of the answer that no tool message on the path to `leaf` has answered yet. */
export function openCalls(conv, answer) {
    const done = new Set(path(conv).filter((n) => n.role === 'tool').map((n) => n.callId));
    return (answer.calls ?? []).filter((c) => !done.has(c.id));
}

/* Some models think inside <think> in plain content where the server does not take it apart. */
export function splitThinking(node) {
    const match = /^\s*<think>([\s\S]*?)(<\/think>|$)/.exec(node.content);
    if (!match || node.reasoning) return { reasoning: node.reasoning ?? '', content: node.content };
    return { reasoning: match[1].trim(), content: node.content.slice(match[0].length).trimStart() };
}
