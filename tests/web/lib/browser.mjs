// browser.mjs: Debian's Chromium on the page of a real lhd.
import { createRequire } from 'node:module';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import assert from 'node:assert/strict';
import { atEnd, build, until } from '../../e2e/lib/lhd.mjs';

const ofWeb = createRequire(resolve('web/package.json')); // its packages are web/'s
const { chromium } = ofWeb('playwright-core');
const PROGRAM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => existsSync(p));

export const screenshots = join(build, 'screenshots');

/** One browser for a test file; `t` is its outermost test. */
export async function browser(t) {
  assert.ok(PROGRAM, "there is no Chromium; 'make deps' installs it");
  // As root, and in containers, its sandbox cannot be set up; the pages are our own.
  const b = await chromium.launch({ executablePath: PROGRAM, args: ['--no-sandbox'] });
  atEnd(t, () => b.close());
  return b;
}

/** The page of lhd, opened by an address of its own. */
export async function openPage(t, b, lhd, { steer = false, hash = '', width = 1280, height = 860, scheme = 'light', prepare } = {}) {
  const context = await b.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: 'reduce', acceptDownloads: true });
  atEnd(t, () => context.close());
  const page = watched(await context.newPage());
  if (prepare) await prepare(page);
  const { url } = await lhd.call('daemon.dashboard', { steer });
  await page.goto(url);
  await page.waitForSelector('.overview');
  if (hash) await go(page, hash);
  return page;
}

/** Collects in `page.complaints` what the browser complains of, but for what it says of a
 * connection that was cut or a call that was refused. */
export function watched(page) {
  page.complaints = [];
  page.on('pageerror', (e) => page.complaints.push(String(e.stack)));
  page.on('console', (m) => {
    if (['error', 'warning'].includes(m.type()) && !/net::ERR_|Failed to load resource/.test(m.text())) page.complaints.push(m.text());
  });
  return page;
}

export async function go(page, hash) {
  await page.evaluate((h) => { location.hash = h; }, hash);
  await page.waitForSelector(hash.startsWith('#/job/') ? '.readout' : hash.startsWith('#/compare/') ? '.compared tbody tr' : '.overview');
}

/** The text of a number of the page's head. */
export const stat = (page, name) => page.locator(`.head [data-stat="${name}"] b`).textContent();

/** Until a probe in the page gives something true. */
export const pageUntil = (what, probe, limitMs = 30_000) => until(what, async () => {
  try { return await probe(); } catch (e) { if (/context was destroyed/.test(String(e))) return null; throw e; }
}, limitMs);

/** What axe-core finds that keeps somebody out. */
export async function serious(page) {
  // The page's own policy takes no script but its files: this one is the debugger's.
  await page.evaluate(readFileSync(ofWeb.resolve('axe-core/axe.min.js'), 'utf8'));
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }));
  return violations.filter((v) => ['serious', 'critical'].includes(v.impact))
    .map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html.slice(0, 160)).join(' | ')}`);
}

export async function keep(page, name) {
  mkdirSync(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
}
