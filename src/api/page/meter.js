// SPDX-License-Identifier: Apache-2.0
//
// meter.js - how full the model's window is, in tokens the server counted, never estimated.
//
// While one types, POST /tokenize counts the whole conversation with the draft; where a server cannot do that, the
// usage of the last answer stands.
import { $, debounce, numbers } from './dom.js';
import { settings } from './settings.js';
import { path, sentText, toMessages } from './tree.js';
import { countTokens } from './wire.js';

const COUNT_AFTER_MS = 400;

export class Meter {
    /* now(): {conv, draft, files, window} */
    constructor(now) {
        this.now = now;
        this.canCount = true;
        this.asked = 0;
        this.update = debounce(() => this.count(), COUNT_AFTER_MS);
    }

    async count() {
        const { conv, draft, files, window } = this.now();
        const asked = ++this.asked;
        const messages = conv ? toMessages(conv) : [];
        if (draft.trim() || files.length) messages.push({ role: 'user', content: sentText({ content: draft, files }) });
        if (messages.length === 0 || !settings.model) { this.draw(0, window); return; }
        const used = (this.canCount && await this.ask(messages)) || this.fromUsage(conv);
        if (asked === this.asked) this.draw(used, window);
    }

    async ask(messages) {
        try {
            const answer = await countTokens(settings.model, messages);
            return answer.count ?? answer.token_count ?? answer.tokens?.length ?? 0;
        } catch (e) {
            if (e.status === 400 || e.status === 404 || e.status === 405 || e.status === 501) this.canCount = false;
            return 0;
        }
    }

    fromUsage(conv) {
        const last = conv && path(conv).filter((n) => n.stats?.promptTokens !== undefined).at(-1);
        return last ? last.stats.promptTokens + (last.stats.answerTokens ?? 0) : 0;
    }

    draw(used, window) {
        const root = $('meter');
        root.hidden = !used;
        if (!used) return;
        const full = window > 0 && used > window;
        const text = window ? `${numbers.format(used)} / ${numbers.format(window)}` : numbers.format(used);
        $('meter-text').textContent = `${text} tokens`;
        $('meter-bar').hidden = !window;
        $('meter-bar').max = window || 1;
        $('meter-bar').value = Math.min(used, window || 1);
        root.classList.toggle('full', full || (window > 0 && used > 0.9 * window));
        root.title = full ? 'More than the window of this model holds' : 'Tokens of this conversation, of the window';
    }
}
