// SPDX-License-Identifier: Apache-2.0
//
// panel.js - the settings drawer: every field is stored as it is typed; what cannot be sent is said beside it.
import { $, el } from './dom.js';
import { resetSampler, SAMPLER, samplerProblem, setSetting, settings } from './settings.js';

function samplerField([name, f]) {
    const input = el('input', {
        id: `s-${name}`, name, type: 'number', inputmode: 'decimal', placeholder: 'default', autocomplete: 'off',
        min: f.min, max: f.max, step: f.step, 'aria-describedby': `p-${name}`,
    });
    return el('div', { class: 'field' }, el('label', { for: `s-${name}` }, f.label), input,
        el('p', { id: `p-${name}`, class: 'field-problem' }));
}

function jsonProblem(text) {
    if (!text.trim()) return '';
    try { JSON.parse(text); return ''; } catch (e) { return e.message; }
}

export class Panel {
    /* hooks: system(text) when the system prompt changed; key() when the key was entered */
    constructor(hooks) {
        this.hooks = hooks;
        $('sampler').append(...Object.entries(SAMPLER).map(samplerField));
        this.fill();
        $('settings').addEventListener('input', (e) => this.take(e.target));
        $('settings').addEventListener('change', (e) => { if (e.target.name === 'key') hooks.key(); });
        $('sampler-reset').addEventListener('click', () => { resetSampler(); this.fill(); });
        $('settings-open').addEventListener('click', () => this.open());
        for (const radio of document.querySelectorAll('[name=theme]')) {
            radio.checked = radio.value === window.squishTheme.get();
            radio.addEventListener('change', () => window.squishTheme.set(radio.value));
        }
        $('key-show').addEventListener('click', () => this.showKey());
    }

    fill() {
        for (const name of Object.keys(settings)) {
            const input = $(`s-${name}`);
            if (!input) continue;
            input.value = settings[name];
            this.check(name);
        }
    }

    open(focus) {
        $('settings').showModal();
        if (focus) $(focus).focus();
    }

    take(input) {
        if (!(input.name in settings)) return;
        // A number field that holds no number reads as empty; what was typed is told by its validity.
        setSetting(input.name, input.validity?.badInput ? 'NaN' : input.value);
        this.check(input.name);
        if (input.name === 'system') this.hooks.system(input.value);
    }

    check(name) {
        const problem = name in SAMPLER ? samplerProblem(name, settings[name])
            : name === 'schema' || name === 'tools' ? jsonProblem(settings[name]) : '';
        const place = $(`p-${name}`);
        if (place) place.textContent = problem;
        $(`s-${name}`).setAttribute('aria-invalid', String(Boolean(problem)));
        if (name === 'format') $('schema-field').hidden = settings.format !== 'schema';
    }

    showKey() {
        const hidden = $('s-key').type === 'password';
        $('s-key').type = hidden ? 'text' : 'password';
        $('key-show').textContent = hidden ? 'Hide' : 'Show';
    }
}
