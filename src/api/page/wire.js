// SPDX-License-Identifier: Apache-2.0
//
// wire.js - everything that goes to the server and comes back; always to the origin the page came from.
//
// Failures become one ServerError with a sentence a user can act on; the server's own words are part of it.
import { settings } from './settings.js';

const FRAME_MAX = 16 * 1024 * 1024; // characters of one event; beyond it the stream is not ours

export class ServerError extends Error {
    constructor(message, { status = 0, code = '', param = '' } = {}) {
        super(message);
        this.status = status;
        this.code = code;
        this.param = param;
    }
}

function headers(json) {
    const h = {};
    if (json) h['content-type'] = 'application/json';
    if (settings.key) h.authorization = `Bearer ${settings.key}`;
    return h;
}

/* OpenAI routes say {"error": {"message", "code", "param"}}, Ollama routes {"error": "text"}. */
function errorOf(body, status, retryAfter) {
    const e = body?.error ?? {};
    const said = typeof e === 'string' ? e : String(e.message ?? '');
    const about = { status, code: String(e.code ?? ''), param: String(e.param ?? '') };
    return new ServerError(kindly(said, about, retryAfter), about);
}

function kindly(said, { status, code, param }, retryAfter) {
    const detail = said ? ` The server says: ${said}` : '';
    if (status === 401 || status === 403) {
        return `The server did not accept this request's key. Enter the API key under Settings.${detail}`;
    }
    if (param.startsWith('response_format') || /response_format|json_schema/.test(`${code} ${said}`)) {
        return `This server cannot hold answers to that format. Set "Answer format" to Text in Settings.${detail}`;
    }
    if (code === 'context_length_exceeded') {
        return 'This conversation no longer fits the model\'s window. Start a new one or edit an earlier message.'
            + detail;
    }
    if (status === 429 || status === 503) {
        return `The server is busy; try again${retryAfter ? ` in ${retryAfter} s` : ' soon'}.${detail}`;
    }
    return said || `The server answered with status ${status}.`;
}

async function failure(res) {
    const body = await res.json().catch(() => null);
    return errorOf(body, res.status, res.headers.get('retry-after'));
}

async function call(path, { body, signal } = {}) {
    let res;
    try {
        res = await fetch(path, {
            method: body === undefined ? 'GET' : 'POST', cache: 'no-store', signal,
            headers: headers(body !== undefined), body: body === undefined ? undefined : JSON.stringify(body),
        });
    } catch (e) {
        if (e.name === 'AbortError') throw e;
        throw new ServerError('The server does not answer.', { code: 'unreachable' });
    }
    if (!res.ok) throw await failure(res);
    return res;
}

const json = async (path, options) => (await call(path, options)).json();

export const listModels = async () => (await json('/v1/models')).data ?? [];
export const listLoaded = async () => (await json('/api/ps')).models ?? [];
export const countTokens = (model, messages, signal) => json('/tokenize', { body: { model, messages }, signal });

/* An empty prompt loads a model, keep_alive 0 lets it go: what Ollama's own clients do. */
export const loadModel = (model) => json('/api/generate', { body: { model, prompt: '', stream: false } });
export const unloadModel = (model) =>
    json('/api/generate', { body: { model, prompt: '', stream: false, keep_alive: 0 } });

/* {status: 'ok' | 'loading' | 'draining' | 'unreachable' | ..., progress} */
export async function health() {
    try {
        const res = await fetch('/health', { headers: headers(false), cache: 'no-store' });
        const body = await res.json().catch(() => ({}));
        return { status: String(body.status ?? (res.ok ? 'ok' : 'failed')), progress: body.progress };
    } catch {
        return { status: 'unreachable' };
    }
}

/* Server-sent events of a body: yields the data of each. Comments (pings) and other fields carry nothing here. */
async function* events(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    let data = [];
    for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const lines = (rest + value).split('\n');
        rest = lines.pop();
        if (rest.length > FRAME_MAX) throw new ServerError('The server sent an endless event.');
        for (const raw of lines) {
            const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
            if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
            else if (line === '' && data.length) {
                yield data.join('\n');
                data = [];
            }
        }
    }
}

/* Chunks of an answer, in order. An answer that ends without [DONE] was cut, and that is an error: a half sentence
 * must not look like a whole one. */
export async function* streamChat(body, signal) {
    const res = await call('/v1/chat/completions', {
        body: { ...body, stream: true, stream_options: { include_usage: true } }, signal,
    });
    try {
        for await (const data of events(res.body)) {
            if (data === '[DONE]') return;
            const chunk = JSON.parse(data);
            if (chunk.error) throw errorOf(chunk, 200);
            yield chunk;
        }
    } catch (e) {
        if (e.name === 'AbortError' || e instanceof ServerError) throw e;
        if (e instanceof SyntaxError) throw new ServerError(`The server sent an event that is not JSON: ${e.message}`);
        throw new ServerError('The connection broke before the answer was whole.', { code: 'cut' });
    }
    throw new ServerError('The connection ended before the answer was whole.', { code: 'cut' });
}
