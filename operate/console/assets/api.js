// The admin API as this page uses it: same origin, session cookie, and a header that shows the request is the page's own.

/** What the API refused, with its code. */
export class ApiError extends Error {
  /** @param {number} status @param {{ detail?: string, code?: string, hint?: string }} problem */
  constructor(status, problem) {
    super(problem.detail ?? `the server answered ${status}`);
    this.status = status;
    this.code = problem.code ?? '';
    this.hint = problem.hint ?? '';
  }
}

/**
 * One request; rejects with `ApiError`, or with `TypeError` or `TimeoutError` when there is no answer.
 * @param {string} path
 * @param {{ method?: string, body?: unknown, timeoutMs?: number }} options
 */
export async function api(path, { method = 'GET', body, timeoutMs = 8000 } = {}) {
  const headers = { 'x-archipelago-console': '1' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  const response = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(timeoutMs),
  });
  const text = await response.text();
  let data;
  try {
    data = text === '' ? undefined : JSON.parse(text);
  } catch {
    data = undefined;
  }
  if (!response.ok) throw new ApiError(response.status, data ?? {});
  return data;
}
