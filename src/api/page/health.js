// SPDX-License-Identifier: Apache-2.0
//
// health.js - notices when the server goes away or is not ready, and when it is back.
import { announce, banner } from './notices.js';
import { health } from './wire.js';

const CALM_MS = 15000;
const ANXIOUS_MS = 2000;

const WORDS = {
    unreachable: 'The server does not answer. Your conversations are safe here; trying again…',
    loading: 'The server is loading the model',
    draining: 'The server is shutting down; it takes no new messages.',
    failed: 'The server says that its engine failed. Its log knows more.',
};

export class Health {
    /* back(): the server answers again; dot(status): for the light in the header */
    constructor(back, dot) {
        this.back = back;
        this.dot = dot;
        this.status = 'ok';
        this.timer = 0;
        document.addEventListener('visibilitychange', () => { if (!document.hidden) this.check(); });
        window.addEventListener('online', () => this.check());
    }

    /* Look now, then again and again: often while something is wrong, rarely in the background. */
    async check() {
        clearTimeout(this.timer);
        const { status, progress } = await health();
        this.tell(status, progress);
        const pause = status === 'ok' ? CALM_MS : ANXIOUS_MS;
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.check(), document.hidden ? 4 * CALM_MS : pause);
    }

    tell(status, progress) {
        const before = this.status;
        this.status = status;
        this.dot(status);
        if (status === 'ok') {
            if (before === 'ok') return;
            banner('Connected again.', 'good');
            setTimeout(() => { if (this.status === 'ok') banner(''); }, 3000);
            announce('Connected again');
            this.back();
            return;
        }
        const share = typeof progress === 'number' ? ` (${Math.round(100 * progress)} %)` : '';
        const words = WORDS[status] ?? `The server reports its state as "${status}".`;
        banner(status === 'loading' ? `${words}${share}…` : words);
        if (before !== status) announce(words);
    }
}
