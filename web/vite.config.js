// What lhd embeds: plain files under dist/assets and one index.html. Nothing is
// inlined, because the page's Content-Security-Policy takes no inline code or style.
import { defineConfig } from 'vite';

export default defineConfig({
  base: '/',
  build: { target: 'es2020', assetsInlineLimit: 0, modulePreload: { polyfill: false }, reportCompressedSize: false },
});
