// SPDX-License-Identifier: Apache-2.0
//
// settings.js - what the user chose, kept in this browser's localStorage and nowhere else.
//
// Sampler fields are strings as typed. Empty means "not sent": the server's own default holds, and the page never
// has an opinion of its own about temperature.

const KEY = 'squish-settings';
const DEFAULTS = {
    model: '', key: '', system: '', tools: '', format: 'text', schema: '',
    temperature: '', top_p: '', top_k: '', min_p: '', repetition_penalty: '', presence_penalty: '',
    frequency_penalty: '', max_tokens: '', seed: '',
};

/* name in the request -> limits of the field; `whole` ones are integers. */
export const SAMPLER = {
    temperature: { label: 'Temperature', min: 0, max: 2, step: 0.05 },
    top_p: { label: 'Top-p', min: 0, max: 1, step: 0.01 },
    top_k: { label: 'Top-k', min: 0, max: 100000, step: 1, whole: true },
    min_p: { label: 'Min-p', min: 0, max: 1, step: 0.01 },
    repetition_penalty: { label: 'Repeat penalty', min: 0.1, max: 2, step: 0.05 },
    presence_penalty: { label: 'Presence penalty', min: -2, max: 2, step: 0.1 },
    frequency_penalty: { label: 'Frequency penalty', min: -2, max: 2, step: 0.1 },
    max_tokens: { label: 'Max tokens', min: 1, max: 10000000, step: 1, whole: true },
    seed: { label: 'Seed', min: 0, max: 9007199254740991, step: 1, whole: true },
};

function load() {
    try {
        const stored = JSON.parse(localStorage.getItem(KEY) ?? '{}');
        const known = Object.keys(DEFAULTS).filter((k) => typeof stored[k] === 'string');
        return { ...DEFAULTS, ...Object.fromEntries(known.map((k) => [k, stored[k]])) };
    } catch {
        return { ...DEFAULTS };
    }
}

export const settings = load();

export function setSetting(name, value) {
    settings[name] = value;
    try { localStorage.setItem(KEY, JSON.stringify(settings)); } catch { /* private window: for this visit only */ }
}

export function resetSampler() {
    for (const name of Object.keys(SAMPLER)) setSetting(name, '');
}

/* Why a field cannot be sent, or '' if it can. */
export function samplerProblem(name, text) {
    const f = SAMPLER[name];
    if (text.trim() === '') return '';
    const n = Number(text);
    if (!Number.isFinite(n)) return `${f.label}: '${text}' is not a number`;
    if (f.whole && !Number.isInteger(n)) return `${f.label}: ${text} is not a whole number`;
    if (n < f.min || n > f.max) return `${f.label}: ${text} is not between ${f.min} and ${f.max}`;
    return '';
}

function parseField(name, text) {
    try { return JSON.parse(text); } catch (e) { throw new Error(`${name} is not valid JSON: ${e.message}`); }
}

function responseFormat() {
    if (settings.format === 'json') return { type: 'json_object' };
    if (settings.format !== 'schema') return null;
    const schema = parseField('The JSON schema', settings.schema || '{}');
    return { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } };
}

/* The part of a request that settings decide. Throws an Error with a sentence for the user. */
export function requestOptions() {
    const body = {};
    for (const name of Object.keys(SAMPLER)) {
        const problem = samplerProblem(name, settings[name]);
        if (problem) throw new Error(problem);
        if (settings[name].trim() !== '') body[name] = Number(settings[name]);
    }
    const format = responseFormat();
    if (format) body.response_format = format;
    if (settings.tools.trim()) {
        body.tools = parseField('Tools', settings.tools);
        if (!Array.isArray(body.tools)) throw new Error('Tools: a JSON array of tool definitions is wanted');
    }
    return body;
}
