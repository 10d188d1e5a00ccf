// SPDX-License-Identifier: Apache-2.0
//
// models.js - which models the server has, which is chosen, and which are in memory.
//
// Loading and unloading go through the Ollama routes; a server without them simply shows no buttons for it.
import { $, el, numbers } from './dom.js';
import { toast } from './notices.js';
import { setSetting, settings } from './settings.js';
import { listLoaded, listModels, loadModel, unloadModel } from './wire.js';

const bare = (name) => String(name).replace(/:latest$/, '');

function sizeOf(bytes) {
    if (!bytes) return '';
    return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}

export class Models {
    constructor(changed) {
        this.list = [];
        this.loaded = null; // null: the server does not say
        this.changed = changed;
        $('model').addEventListener('change', () => this.choose($('model').value));
        $('model-load').addEventListener('click', () => this.switchMemory());
    }

    async refresh() {
        this.list = await listModels();
        this.loaded = await listLoaded().catch(() => null);
        if (!this.list.some((m) => m.id === settings.model)) setSetting('model', this.list[0]?.id ?? '');
        this.draw();
        this.changed();
    }

    current() { return this.list.find((m) => m.id === settings.model); }

    /* Window of the chosen model in tokens; 0 when nobody says. */
    window() {
        const m = this.current();
        return m?.meta?.n_ctx || m?.max_model_len || m?.meta?.n_ctx_train || 0;
    }

    inMemory() {
        return this.loaded?.find((m) => bare(m.name ?? m.model) === bare(settings.model)) ?? null;
    }

    choose(id) {
        setSetting('model', id);
        this.draw();
        this.changed();
    }

    draw() {
        const options = this.list.map((m) => el('option', { value: m.id, selected: m.id === settings.model }, m.id));
        $('model').replaceChildren(...(options.length ? options : [el('option', { value: '' }, 'No model')]));
        $('model').disabled = options.length === 0;
        this.drawFacts();
    }

    drawFacts() {
        const m = this.current();
        const meta = m?.meta ?? {};
        const held = this.inMemory();
        const facts = [
            meta.n_params ? ['Parameters', `${numbers.format(Math.round(meta.n_params / 1e5) / 10)} M`] : null,
            meta.quant ? ['Weights', String(meta.quant)] : null,
            meta.size ? ['Size', sizeOf(meta.size)] : null,
            this.window() ? ['Window', `${numbers.format(this.window())} tokens`] : null,
            this.loaded ? ['In memory', held ? memoryText(held) : 'no'] : null,
        ].filter(Boolean);
        $('model-facts').replaceChildren(...facts.flatMap(([k, v]) => [el('dt', {}, k), el('dd', {}, v)]));
        $('model-load').hidden = !this.loaded || !m;
        $('model-load').textContent = held ? 'Unload from memory' : 'Load into memory';
    }

    async switchMemory() {
        const button = $('model-load');
        const held = this.inMemory();
        button.disabled = true;
        button.textContent = held ? 'Unloading…' : 'Loading…';
        try {
            await (held ? unloadModel(settings.model) : loadModel(settings.model));
            await this.refresh();
            toast(held ? `${settings.model} is no longer in memory` : `${settings.model} is in memory`);
        } catch (e) {
            toast(e.message);
        }
        button.disabled = false;
        this.drawFacts();
    }
}

function memoryText(held) {
    const until = Date.parse(held.expires_at ?? '');
    if (!Number.isFinite(until) || until - Date.now() > 365 * 24 * 3600 * 1000) return 'yes';
    return `yes, until ${new Date(until).toLocaleTimeString('en', { hour: '2-digit', minute: '2-digit' })} if unused`;
}
