// SPDX-License-Identifier: Apache-2.0
//
// portable.js - conversations as files: JSON that can be read back, Markdown for people.
//
// An imported file comes from anywhere, so it is rebuilt field by field: only known fields of known types get in,
// every parent must exist, and identifiers are made anew.
import { download, uid } from './dom.js';
import { path, sentText, splitThinking } from './tree.js';

const FORMAT = 'squish-chat';
const IMPORT_MAX = 64 * 1024 * 1024;
const ROLES = ['user', 'assistant', 'tool'];

const fileName = (title, ending) => `${title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 60) || 'chat'}.${ending}`;

export function exportJson(conversations) {
    const name = conversations.length === 1 ? conversations[0].title : 'squish-conversations';
    const text = JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
    download(fileName(name, 'json'), 'application/json', text);
}

const quoted = (text) => text.split('\n').map((l) => `> ${l}`).join('\n');

function nodeMarkdown(node) {
    if (node.role === 'user') return `## You\n\n${sentText(node)}`;
    if (node.role === 'tool') return `## Result of ${node.name}\n\n\`\`\`\n${node.content}\n\`\`\``;
    const { reasoning, content } = splitThinking(node);
    const calls = (node.calls ?? []).map((c) => `Tool call \`${c.name}\`:\n\n\`\`\`json\n${c.arguments}\n\`\`\``);
    const parts = [reasoning ? quoted(reasoning) : '', content, ...calls].filter(Boolean);
    return `## ${node.model || 'Answer'}\n\n${parts.join('\n\n')}`;
}

export function toMarkdown(conv) {
    const system = conv.system.trim() ? [`## System\n\n${conv.system}`] : [];
    return [`# ${conv.title}`, ...system, ...path(conv).map(nodeMarkdown)].join('\n\n') + '\n';
}

export function exportMarkdown(conv) {
    download(fileName(conv.title, 'md'), 'text/markdown', toMarkdown(conv));
}

const string = (v) => (typeof v === 'string' ? v : '');
const number = (v, fallback) => (Number.isFinite(v) ? v : fallback);

function readStats(stats) {
    if (typeof stats !== 'object' || stats === null) return undefined;
    const names = ['firstMs', 'thinkingMs', 'tokensPerSecond', 'promptTokens', 'answerTokens', 'cachedTokens'];
    return Object.fromEntries(names.filter((n) => Number.isFinite(stats[n])).map((n) => [n, stats[n]]));
}

function readNode(node, ids) {
    if (!ROLES.includes(node?.role)) throw new Error(`a message has the role '${String(node?.role)}'`);
    if (node.parent && !ids.has(node.parent)) {
        throw new Error(`message ${string(node.id)} has no parent ${string(node.parent)}`);
    }
    const list = (v) => (Array.isArray(v) ? v : []);
    return {
        id: ids.get(node.id), parent: node.parent ? ids.get(node.parent) : null,
        seq: number(node.seq, 0), at: number(node.at, Date.now()), role: node.role,
        content: string(node.content), reasoning: string(node.reasoning), model: string(node.model),
        finish: string(node.finish) || (node.role === 'assistant' ? 'stop' : undefined),
        error: string(node.error) || undefined, stats: readStats(node.stats),
        callId: string(node.callId), name: string(node.name),
        calls: list(node.calls).map((c) => ({
            id: string(c?.id), name: string(c?.name), arguments: string(c?.arguments),
        })),
        files: list(node.files).map((f) => ({ name: string(f?.name), text: string(f?.text) })),
    };
}

/* A parent chain that comes back to itself would hang every walk along it. */
function checkAcyclic(nodes) {
    const safe = new Set();
    for (const start of Object.values(nodes)) {
        const seen = new Set();
        for (let at = start; at && !safe.has(at.id); at = nodes[at.parent]) {
            if (seen.has(at.id)) throw new Error('messages are each other\'s parents');
            seen.add(at.id);
        }
        for (const id of seen) safe.add(id);
    }
}

function readConversation(conv) {
    const told = Object.values(conv?.nodes ?? {});
    const ids = new Map(told.map((n) => [string(n?.id), uid()]));
    const nodes = Object.fromEntries(told.map((n) => readNode(n, ids)).map((n) => [n.id, n]));
    checkAcyclic(nodes);
    const leaf = ids.get(string(conv.leaf)) ?? Object.values(nodes).sort((a, b) => b.seq - a.seq)[0]?.id ?? null;
    return {
        id: uid(), title: string(conv.title).slice(0, 200) || 'Imported', leaf, nodes,
        created: number(conv.created, Date.now()), updated: number(conv.updated, Date.now()),
        system: string(conv.system),
    };
}

/* Conversations of a file, or an Error that says what is wrong with it. */
export async function importFile(file) {
    if (file.size > IMPORT_MAX) throw new Error(`${file.name}: ${file.size} bytes, at most ${IMPORT_MAX}`);
    let data;
    try {
        data = JSON.parse(await file.text());
    } catch (e) {
        throw new Error(`${file.name} is not JSON: ${e.message}`);
    }
    if (data?.format !== FORMAT || data.version !== 1 || !Array.isArray(data.conversations)) {
        throw new Error(`${file.name} is not an export of this page: "format": "${FORMAT}", "version": 1 is wanted`);
    }
    try {
        return data.conversations.map(readConversation);
    } catch (e) {
        throw new Error(`${file.name} is damaged: ${e.message}`);
    }
}
