// stream.ts: what lhd pushes, kept open. Read with fetch and not EventSource, which
// cannot send the key. After a break it goes on at the last cursor; whoever listens
// loads anew what it shows (`up`), so that a break leaves no gap and no double.
import { authorization, NoSession } from './api';
import { SseParser } from './sse';

export interface StreamListener {
  message(event: string, data: unknown): void;
  up(again: boolean): void; // connected; again: not for the first time
  down(lastHeardMs: number): void;
  denied(): void; // the key is not valid any more
}

/** Nothing for so long, not even a heartbeat: the connection is given up. */
const SILENCE_MS = 30_000;
const RETRY_MIN_MS = 300;
const RETRY_MAX_MS = 3_000;

/** Opens it; the answer closes it for good. */
export function openStream(query: string, listener: StreamListener): () => void {
  let closed = false;
  let abort = new AbortController();
  let cursor: string | null = null;
  let heardMs = Date.now();
  let was = false; // it was up before
  let retryMs = RETRY_MIN_MS;

  async function read(): Promise<void> {
    abort = new AbortController();
    let watch = window.setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const headers = { ...authorization(), ...(cursor === null ? {} : { 'Last-Event-ID': cursor }) };
      const res = await fetch(`/events?${query}`, { headers, signal: abort.signal, cache: 'no-store', credentials: 'omit' });
      if (res.status === 401) throw new NoSession();
      if (!res.ok || !res.body) throw new Error(`HTTP status ${res.status}`);
      const parser = new SseParser();
      const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
      listener.up(was);
      was = true;
      retryMs = RETRY_MIN_MS;
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(watch);
        watch = window.setTimeout(() => abort.abort(), SILENCE_MS);
        heardMs = Date.now();
        for (const m of parser.push(value)) {
          if (m.id !== null) cursor = m.id;
          listener.message(m.event, JSON.parse(m.data));
        }
      }
    } finally {
      clearTimeout(watch);
    }
  }

  (async () => {
    while (!closed) {
      try {
        await read();
      } catch (e) {
        if (closed) return;
        if (e instanceof NoSession) return listener.denied();
      }
      if (closed) return;
      listener.down(heardMs);
      await new Promise((r) => setTimeout(r, retryMs));
      retryMs = Math.min(RETRY_MAX_MS, retryMs * 2);
    }
  })();
  return () => { closed = true; abort.abort(); };
}
