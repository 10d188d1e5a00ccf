// SPDX-License-Identifier: Apache-2.0
//
// chat.js - what happens: sending, answering, stopping, regenerating, editing into branches, handing in tool results.
//
// Several conversations may be answered at once (the server batches them); each answer grows into its own node,
// whether it is on screen or not.
import { Log } from './log.js';
import { announce, Reader, toast } from './notices.js';
import { requestOptions, settings } from './settings.js';
import { addNode, newConversation, openCalls, path, siblings, splitThinking, toMessages } from './tree.js';
import { streamChat } from './wire.js';

const REDRAW_MS = 60;

/* What one chunk of a stream adds to an answer. Returns whether it carried text. */
export function takeChunk(node, chunk) {
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    const text = delta.content ?? '';
    const thought = delta.reasoning_content ?? delta.reasoning ?? '';
    node.content += text;
    node.reasoning += thought;
    for (const part of delta.tool_calls ?? []) takeCall(node, part);
    if (choice?.finish_reason) node.finish = choice.finish_reason;
    if (chunk.model) node.model = chunk.model;
    return Boolean(text || thought || delta.tool_calls?.length);
}

function takeCall(node, part) {
    const index = Number.isInteger(part.index) && part.index >= 0 && part.index < 256 ? part.index : 0;
    node.calls ??= [];
    while (node.calls.length <= index) node.calls.push({ id: '', name: '', arguments: '' });
    const call = node.calls[index];
    if (part.id) call.id = part.id;
    if (part.function?.name) call.name = part.function.name;
    call.arguments += part.function?.arguments ?? '';
}

/* The server's own timings where it sends them, else what the browser saw. */
export function takeFigures(stats, chunk, clock) {
    const { usage, timings } = chunk;
    if (usage) {
        stats.promptTokens = usage.prompt_tokens;
        stats.answerTokens = usage.completion_tokens;
        stats.cachedTokens = usage.prompt_tokens_details?.cached_tokens ?? stats.cachedTokens ?? 0;
        const seconds = (clock.last - clock.first) / 1000;
        if (!stats.tokensPerSecond && seconds > 0 && usage.completion_tokens > 1) {
            stats.tokensPerSecond = (usage.completion_tokens - 1) / seconds; // the first token ended the prompt
        }
    }
    if (timings?.predicted_per_second) stats.tokensPerSecond = timings.predicted_per_second;
    if (Number.isInteger(timings?.cache_n)) stats.cachedTokens = timings.cache_n;
}

export class Chat {
    /* hooks: changed() whenever what is shown or running changed; unreachable() when the server is gone */
    constructor(conversations, hooks) {
        this.conversations = conversations;
        this.hooks = hooks;
        this.conv = null;
        this.runs = new Map(); // conversation id -> {node, abort}
        this.log = new Log({
            siblings : (n) => siblings(this.conv, n),
            turnTo : (n) => {
                this.conversations.turnTo(this.conv, n);
                this.show(true);
            },
            isRunning : (n) => this.runs.get(this.conv?.id)?.node === n,
            openCalls : (n) => openCalls(this.conv, n),
            regenerate : (n) => this.answer(n.parent),
            edit : (n, text) => this.edit(n, text),
            giveResult : (n, call, text) => this.giveResult(n, call, text),
        });
    }

    isBusy(id = this.conv?.id) { return this.runs.has(id); }

    open(id) {
        this.conv = id ? this.conversations.get(id) ?? null : null;
        if (this.conv) this.mendInterrupted(this.conv);
        this.show();
    }

    show(stay) {
        this.log.show(this.conv, stay);
        this.hooks.changed();
    }

    /* An answer that was growing when its page closed has neither an end nor an error. */
    mendInterrupted(conv) {
        const running = this.runs.get(conv.id)?.node;
        for (const node of Object.values(conv.nodes)) {
            if (node.role !== 'assistant' || node === running) continue;
            if (!node.finish && !node.error) node.finish = 'interrupted';
        }
    }

    send(text, files) {
        if (this.isBusy()) return false;
        this.conv ??= newConversation(settings.system);
        const node = addNode(this.conv, this.conv.leaf, { role: 'user', content: text, files });
        this.log.append(node);
        this.answer(node.id);
        return true;
    }

    edit(node, text) {
        if (this.isBusy()) { toast('Stop the answer first'); return; }
        const edited = addNode(this.conv, node.parent, { role: 'user', content: text, files: node.files });
        this.show();
        this.answer(edited.id);
    }

    giveResult(answer, call, text) {
        const conv = this.conv;
        const node = addNode(conv, conv.leaf, { role: 'tool', content: text, callId: call.id, name: call.name });
        this.log.append(node);
        this.log.refresh(answer);
        if (openCalls(conv, answer).length === 0) this.answer(node.id);
        else
            this.conversations.put(conv);
    }

    regenerateLast() {
        const last = this.conv && path(this.conv).at(-1);
        if (last?.role === 'assistant') this.answer(last.parent);
        else if (last) this.answer(last.id);
    }

    editLast() {
        const last = this.conv && path(this.conv).filter((n) => n.role === 'user').at(-1);
        if (last) this.log.edit(last);
    }

    lastAnswer() {
        const last = this.conv && path(this.conv).filter((n) => n.role === 'assistant').at(-1);
        return last ? splitThinking(last).content : '';
    }

    stop(id = this.conv?.id) {
        this.runs.get(id)?.abort.abort();
    }

    /* Writes a new answer under the message `parent`. */
    async answer(parent) {
        const conv = this.conv;
        if (this.isBusy(conv.id)) { toast('Stop the answer first'); return; }
        const node = addNode(conv, parent, { role: 'assistant', content: '', reasoning: '', model: settings.model });
        const run = { node, abort: new AbortController() };
        this.runs.set(conv.id, run);
        this.conversations.put(conv);
        this.show();
        const reader = new Reader();
        announce('Answering');
        try {
            const body = { model: settings.model, messages: toMessages(conv, parent), ...requestOptions() };
            await this.receive(conv, run, body, reader);
        } catch (e) {
            this.fail(node, e);
        }
        this.runs.delete(conv.id);
        if (this.conversations.get(conv.id)) this.conversations.put(conv); // unless it was deleted meanwhile
        if (this.conv === conv) {
            this.log.refresh(node);
            reader.finish(splitThinking(node).content, node.error ?? 'Answer complete');
        }
        this.hooks.changed();
    }

    async receive(conv, run, body, reader) {
        const { node } = run;
        const clock = { begin: performance.now(), first: 0, last: 0 };
        node.stats = {};
        let drawn = 0;
        let drawMs = 0;
        for await (const chunk of streamChat(body, run.abort.signal)) {
            const now = performance.now();
            if (takeChunk(node, chunk)) this.tick(node, clock, now);
            takeFigures(node.stats, chunk, clock);
            this.conversations.putSoon(conv);
            // Drawing may take at most about a third of the time, however long the answer gets.
            if (this.conv !== conv || now - drawn < Math.max(REDRAW_MS, 2 * drawMs)) continue;
            this.log.refresh(node);
            reader.grow(splitThinking(node).content);
            drawn = performance.now();
            drawMs = drawn - now;
        }
        node.finish ??= 'stop';
    }

    tick(node, clock, now) {
        if (!clock.first) {
            clock.first = now;
            node.stats.firstMs = now - clock.begin;
        }
        if (node.reasoning && !node.content) node.stats.thinkingMs = now - clock.first;
        clock.last = now;
    }

    fail(node, e) {
        if (e.name === 'AbortError') {
            node.finish = 'stopped';
            return;
        }
        node.error = e.message;
        if (e.status === 401) this.hooks.wantsKey();
        if (e.code === 'unreachable' || e.code === 'cut') this.hooks.unreachable();
    }
}
