// SPDX-License-Identifier: Apache-2.0
//
// message.js - one message as an article: text, thinking, tool calls, what it cost, and what can be done with it.
//
// An article is made once and refreshed in place while its answer grows.
import { copyText, el, icon, iconButton, numbers } from './dom.js';
import { codeBlock, MarkdownView } from './markdown.js';
import { sentText, splitThinking } from './tree.js';
import { toast } from './notices.js';

const seconds = (ms) => (ms < 10000 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 1000).toFixed(1)} s`);

/* "42.1 tokens/s", "first token 0.21 s", ...: only what was measured or told. */
export function factsOf(stats) {
    if (!stats) return [];
    const facts = [];
    if (stats.tokensPerSecond) facts.push(`${stats.tokensPerSecond.toFixed(1)} tokens/s`);
    if (stats.firstMs !== undefined) facts.push(`first token ${seconds(stats.firstMs)}`);
    if (stats.answerTokens !== undefined) facts.push(`${numbers.format(stats.answerTokens)} tokens`);
    if (stats.promptTokens !== undefined) {
        const cached = numbers.format(stats.cachedTokens ?? 0);
        facts.push(`${cached} of ${numbers.format(stats.promptTokens)} prompt tokens cached`);
    }
    return facts;
}

const FINISH = {
    length: 'Stopped at the token limit.',
    stopped: 'Stopped by you.',
    interrupted: 'Interrupted: the page was closed while this was written.',
};

function pretty(argumentsText) {
    try { return JSON.stringify(JSON.parse(argumentsText), null, 2); } catch { return argumentsText; }
}

class Message {
    constructor(node, actions, className, label) {
        this.node = node;
        this.actions = actions;
        this.body = el('div', { class: 'body' });
        this.tools = el('div', { class: 'tools' });
        this.article = el('article', { class: `message ${className}`, 'data-id': node.id, 'aria-label': label });
    }

    /* The arrows between versions of this message, if it has any. */
    versions() {
        const all = this.actions.siblings(this.node);
        if (all.length < 2) return null;
        const at = all.findIndex((n) => n.id === this.node.id);
        const go = (step) => () => this.actions.turnTo(all[at + step]);
        return el('span', { class: 'versions', role: 'group', 'aria-label': `Version ${at + 1} of ${all.length}` },
            iconButton('left', 'Previous version', go(-1), { disabled: at === 0 }),
            el('span', { 'aria-hidden': 'true' }, `${at + 1} / ${all.length}`),
            iconButton('right', 'Next version', go(1), { disabled: at === all.length - 1 }));
    }

    copyButton(text) {
        return iconButton('copy', 'Copy message', async () => {
            toast((await copyText(text())) ? 'Copied' : 'This browser did not let the page copy');
        });
    }
}

export class UserMessage extends Message {
    constructor(node, actions) {
        super(node, actions, 'user', 'You');
        this.article.append(this.body, this.tools);
        this.refresh();
    }

    refresh() {
        const files = (this.node.files ?? []).map((f) => el('details', { class: 'file' },
            el('summary', {}, icon('file'), f.name), el('pre', { tabindex: '0' }, f.text)));
        this.body.replaceChildren(...files, el('div', { class: 'said' }, this.node.content));
        this.tools.replaceChildren(...[this.versions(), this.copyButton(() => sentText(this.node)),
            iconButton('edit', 'Edit message', () => this.edit())].filter(Boolean));
    }

    edit() {
        const area = el('textarea', { 'aria-label': 'Edit message', rows: '3' });
        area.value = this.node.content;
        const cancel = () => { this.refresh(); this.article.querySelector('[title="Edit message"]').focus(); };
        const send = () => this.actions.edit(this.node, area.value);
        area.addEventListener('keydown', (e) => {
            if (e.key === 'Escape') { e.stopPropagation(); cancel(); }
            if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); }
        });
        this.body.replaceChildren(el('div', { class: 'editor' }, area, el('div', { class: 'row' },
            el('button', { type: 'button', class: 'button', onclick: cancel }, 'Cancel'),
            el('button', { type: 'button', class: 'button primary', onclick: send }, 'Send as new version'))));
        this.tools.replaceChildren();
        area.focus();
    }
}

export class AnswerMessage extends Message {
    constructor(node, actions) {
        super(node, actions, 'assistant', 'Answer');
        this.markdown = new MarkdownView(this.body);
        this.thought = el('div', { class: 'thought' });
        this.summary = el('span', {}, 'Thinking');
        this.thinking = el('details', { class: 'thinking', hidden: true },
            el('summary', {}, icon('bulb'), this.summary), this.thought);
        this.thinking.addEventListener('click', () => { this.touched = true; });
        this.calls = el('div', { class: 'calls' });
        this.problem = el('div', { class: 'problem', hidden: true });
        this.facts = el('div', { class: 'facts' });
        this.article.append(this.thinking, this.body, this.calls, this.problem, this.facts, this.tools);
        this.refresh();
    }

    refresh() {
        const running = this.actions.isRunning(this.node);
        const { reasoning, content } = splitThinking(this.node);
        this.article.classList.toggle('running', running);
        this.article.classList.toggle('waiting', running && !content && !reasoning && !this.node.calls?.length);
        this.article.setAttribute('aria-busy', String(running));
        this.refreshThinking(reasoning, running && !content);
        this.markdown.render(content);
        this.refreshCalls(running);
        this.refreshProblem();
        this.facts.replaceChildren(...factsOf(this.node.stats).map((f) => el('span', {}, f)));
        if (running) this.tools.replaceChildren();
        else this.refreshTools(content);
    }

    /* Open while the model thinks and nothing else is there to read, then folded, unless the reader decided. */
    refreshThinking(reasoning, thinkingNow) {
        this.thinking.hidden = !reasoning;
        if (!reasoning) return;
        if (this.thought.textContent !== reasoning) this.thought.textContent = reasoning;
        if (!this.touched) this.thinking.open = thinkingNow;
        const ms = this.node.stats?.thinkingMs;
        this.summary.textContent = thinkingNow ? 'Thinking…' : ms ? `Thought for ${seconds(ms)}` : 'Thought';
    }

    refreshCalls(running) {
        const calls = this.node.calls ?? [];
        const open = new Set(running ? [] : this.actions.openCalls(this.node).map((c) => c.id));
        const state = JSON.stringify([calls, [...open]]);
        if (state === this.callState) return; // a reader may be typing a result
        this.callState = state;
        this.calls.replaceChildren(...calls.map((call) => this.card(call, open.has(call.id))));
    }

    card(call, isOpen) {
        const card = el('details', { class: 'card', open: true },
            el('summary', {}, icon('tool'), el('span', {}, 'Tool call: '), el('code', {}, call.name)),
            codeBlock(pretty(call.arguments), 'json'));
        if (isOpen) card.append(this.resultForm(call));
        return card;
    }

    /* The page runs no tools: the reader does, and hands the result in. */
    resultForm(call) {
        const area = el('textarea', {
            rows: '2', 'aria-label': `Result of ${call.name}`, placeholder: 'Result of this call',
        });
        return el('form', {
            class: 'result',
            onsubmit: (e) => { e.preventDefault(); this.actions.giveResult(this.node, call, area.value); },
        }, area, el('button', { class: 'button', type: 'submit' }, 'Send result'));
    }

    refreshProblem() {
        const text = this.node.error ?? FINISH[this.node.finish] ?? '';
        this.problem.hidden = !text;
        this.problem.classList.toggle('error', Boolean(this.node.error));
        if (this.problem.textContent !== text) this.problem.textContent = text;
    }

    refreshTools(content) {
        this.tools.replaceChildren(...[this.versions(), content ? this.copyButton(() => content) : null,
            iconButton('again', 'Regenerate answer', () => this.actions.regenerate(this.node)),
            this.node.model ? el('span', { class: 'by' }, this.node.model) : null].filter(Boolean));
    }
}

export class ToolMessage extends Message {
    constructor(node, actions) {
        super(node, actions, 'tool', `Result of ${node.name}`);
        this.article.append(el('details', { class: 'card' },
            el('summary', {}, icon('tool'), el('span', {}, 'Result of '), el('code', {}, node.name)),
            codeBlock(node.content, '')));
    }

    refresh() {}
}
