// api.ts: the session and the calls. The key comes from the one-time token in the
// page's address and is kept for this tab only; no cookie is ever used.

export class RpcError extends Error {
  constructor(
    readonly code: number,
    message: string,
    readonly hint = '',
  ) {
    super(message);
  }
}

export const NOT_FOUND = -32005;
export const UNKNOWN_METHOD = -32601;
export const BAD_PARAMS = -32602;

/** The key is missing, spent or revoked. */
export class NoSession extends Error {}
/** lhd did not answer. */
export class Unreachable extends Error {}

export interface Session {
  key: string;
  role: 'read' | 'steer';
  expires_ms: number;
}

const STORED = 'lighthouse.session';
const CALL_LIMIT_MS = 15_000;

let session: Session | null = null;
let nextId = 1;

export const canSteer = (): boolean => session?.role === 'steer';
export const authorization = (): Record<string, string> =>
  session ? { Authorization: `Bearer ${session.key}` } : {};

/** Takes the token out of an address, before anything else can see it there. */
export function takeToken(): string | null {
  const found = /^#token=([\w.~-]+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, '', location.pathname);
  return found[1];
}

/** True when there is a key to call with. */
export async function openSession(token: string | null): Promise<boolean> {
  if (token) {
    session = await exchange(token);
    sessionStorage.setItem(STORED, JSON.stringify(session));
    return true;
  }
  const kept = sessionStorage.getItem(STORED);
  session = kept ? (JSON.parse(kept) as Session) : null;
  if (session && session.expires_ms <= Date.now()) closeSession();
  return session !== null;
}

export function closeSession(): void {
  session = null;
  sessionStorage.removeItem(STORED);
}

async function exchange(token: string): Promise<Session> {
  const res = await post('/session', { token }, {});
  if (!res.ok) throw new NoSession('this address was used before, or is older than a minute');
  return (await res.json()) as Session;
}

async function post(path: string, body: unknown, headers: Record<string, string>): Promise<Response> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), CALL_LIMIT_MS);
  try {
    return await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: JSON.stringify(body),
      signal: abort.signal,
      cache: 'no-store',
      credentials: 'omit',
    });
  } catch {
    throw new Unreachable('lhd does not answer');
  } finally {
    clearTimeout(timer);
  }
}

/** A method of the control protocol. Throws RpcError, NoSession or Unreachable. */
export async function rpc<T>(method: string, params: Record<string, unknown> = {}): Promise<T> {
  const res = await post('/rpc', { jsonrpc: '2.0', id: nextId++, method, params }, authorization());
  if (res.status === 401) throw new NoSession('the session has ended');
  let reply: { result?: T; error?: { code: number; message: string; data?: { hint?: string } } };
  try {
    reply = await res.json();
  } catch {
    throw new Unreachable(`lhd answered with HTTP status ${res.status}`);
  }
  if (reply.error)
    throw new RpcError(reply.error.code, reply.error.message, reply.error.data?.hint ?? '');
  if (!('result' in reply)) throw new Unreachable(`lhd answered with HTTP status ${res.status}`);
  return reply.result as T;
}

/** As rpc, but null where lhd does not have the method. */
export async function rpcIfKnown<T>(
  method: string,
  params: Record<string, unknown>,
): Promise<T | null> {
  try {
    return await rpc<T>(method, params);
  } catch (e) {
    if (e instanceof RpcError && e.code === UNKNOWN_METHOD) return null;
    throw e;
  }
}

/** Whether lhd has a method: one without its required parameters does nothing. */
export async function knows(method: string): Promise<boolean> {
  try {
    await rpc(method, {});
    return true;
  } catch (e) {
    if (e instanceof RpcError) return e.code !== UNKNOWN_METHOD;
    throw e;
  }
}
