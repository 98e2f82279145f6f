#!/usr/bin/env python3
"""Drives headless Chromium over flamegraph.py's pictures: zoom, search, keys, address, pages.

    python3 tests/flamegraph/test_browser.py

Prints one line per check: `ok - name`, `not ok - name: why` or `skip - name: why`. Exit code 1 if
any failed. Needs Python 3.8 and a Chromium or Chrome (the variable CHROMIUM may name one); without
one everything is skipped. The browser is spoken to through its remote debugging pipe.
"""
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOL = HERE.parent.parent / 'tools' / 'flamegraph.py'
failed = 0


def report(name, why=None):
    global failed
    if why is None:
        print('ok - ' + name, flush=True)
    else:
        failed += 1
        print('not ok - %s: %s' % (name, ' '.join(str(why).split())[:400]), flush=True)


def find_browser():
    names = [os.environ.get('CHROMIUM'), 'chromium', 'chromium-browser', 'google-chrome', 'chrome']
    return next(filter(None, (shutil.which(n) for n in names if n)), None)


class Browser:
    """A minimal client of the DevTools protocol: NUL-terminated JSON over descriptors 3 and 4."""

    def __init__(self, program, profile):
        in_read, self.writer = os.pipe()
        self.reader, out_write = os.pipe()
        flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
                 '--disable-background-networking', '--disable-component-update', '--disable-sync',
                 '--disable-dev-shm-usage', '--hide-scrollbars', '--allow-file-access-from-files',
                 '--user-data-dir=' + profile, '--remote-debugging-pipe', 'about:blank']
        # The shell moves the pipe ends to 3 and 4 via high numbers, so that neither is overwritten.
        shell = 'exec 8<&%d 9>&%d; exec 3<&8 4>&9 8<&- 9>&-; exec "$@"' % (in_read, out_write)
        self.process = subprocess.Popen(
            ['bash', '-c', shell, 'sh', program] + flags, pass_fds=(in_read, out_write),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        os.close(in_read)
        os.close(out_write)
        self.serial, self.buffer, self.events, self.session = 0, b'', [], None
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target,
                                 flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log'):
            self.call(domain + '.enable')

    def message(self, deadline):
        while b'\0' not in self.buffer:
            if not select.select([self.reader], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError('the browser does not answer')
            data = os.read(self.reader, 1 << 20)
            if not data:
                raise TimeoutError('the browser went away')
            self.buffer += data
        text, self.buffer = self.buffer.split(b'\0', 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.serial += 1
        request = {'id': self.serial, 'method': method, 'params': parameters}
        if self.session:
            request['sessionId'] = self.session
        os.write(self.writer, json.dumps(request).encode() + b'\0')
        deadline = time.monotonic() + 60
        while True:
            m = self.message(deadline)
            if m.get('id') == self.serial:
                if 'error' in m:
                    raise RuntimeError('%s: %s' % (method, m['error']))
                return m['result']
            self.events.append(m)

    def open(self, url, width=1000, height=700):
        """Loads a page anew (also when only the fragment differs) and waits until it is loaded."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.call('Page.navigate', url='about:blank')
        self.events = []
        self.call('Page.navigate', url=url)
        deadline = time.monotonic() + 60
        while not any(e.get('method') == 'Page.loadEventFired' for e in self.events):
            self.events.append(self.message(deadline))
        for _ in range(200):    # about:blank may have sent the event
            if self.js('location.href !== "about:blank" && document.readyState === "complete"'):
                return
            time.sleep(0.02)
        raise TimeoutError('the page does not load')

    def js(self, code):
        r = self.call('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in r:
            raise RuntimeError(json.dumps(r['exceptionDetails'])[:300])
        return r['result'].get('value')

    def errors(self):
        """What went wrong in the page since it was opened."""
        self.js('1')
        out = []
        for e in self.events:
            p = e.get('params', {})
            if e.get('method') == 'Runtime.exceptionThrown':
                d = p['exceptionDetails']
                out.append(d.get('exception', {}).get('description', d.get('text')))
            if e.get('method') == 'Log.entryAdded' and p['entry']['level'] == 'error':
                out.append(p['entry']['text'])
        return out

    def click(self, x, y):
        self.move(x, y)
        for kind in ('mousePressed', 'mouseReleased'):
            self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def move(self, x, y):
        self.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def key(self, key, modifiers=0):
        codes = {'Enter': 13, 'Escape': 27, 'ArrowLeft': 37, 'ArrowUp': 38, 'ArrowRight': 39,
                 'ArrowDown': 40, 'Tab': 9, 'Home': 36, '/': 191, 'c': 67, 'C': 67, 'f': 70,
                 ' ': 32, 's': 83, 'Backspace': 8}
        text = {'Enter': '\r', '/': '/', ' ': ' '}.get(key)
        p = dict(key=key, windowsVirtualKeyCode=codes[key], modifiers=modifiers)
        self.call('Input.dispatchKeyEvent', type='keyDown', **p, **({'text': text} if text else {}))
        self.call('Input.dispatchKeyEvent', type='keyUp', **p)

    def type(self, text):
        self.call('Input.insertText', text=text)

    def close(self):
        try:
            self.session = None
            self.call('Browser.close')
            self.process.wait(20)
        except (OSError, TimeoutError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


# The page under test, seen from outside: what is drawn where, never how the script keeps it.
HELPERS = r"""
window.T = (function () {
  function root(k) { return document.querySelectorAll('svg.cprof-flamegraph')[k || 0]; }
  function all(k) { return Array.from(root(k).querySelectorAll('.frames > g')); }
  function name(e) { return e.getAttribute('aria-label').split(', total ')[0]; }
  function shown(e) { return e.getAttribute('display') !== 'none'; }
  function find(s, k) {
    var path = s.split(';'), open = [];
    return all(k).find(function (e) {
      var d = e.getAttribute('aria-level') - 1;
      open = open.slice(0, d).concat([name(e)]);
      return open.slice(1).join(';') === path.join(';');
    });
  }
  return {
    root: root, find: find,
    press: function (e) { e.dispatchEvent(new MouseEvent('click', {bubbles: true})); },
    box: function (s, k) {
      var e = find(s, k); if (!e || !shown(e)) return null;
      var r = e.querySelector('rect').getBoundingClientRect(), t = e.querySelector('text');
      return {x: r.x, y: r.y, w: r.width, dim: e.classList.contains('dim'),
              hit: e.classList.contains('hit'), text: t ? t.textContent : '',
              label: e.getAttribute('aria-label'),
              fill: getComputedStyle(e.querySelector('rect')).fill};
    },
    shown: function (k) { return all(k).filter(shown).map(name); },
    hits: function (k) {
      return all(k).filter(function (e) { return e.matches('.hit'); }).map(name);
    },
    found: function (k) { return root(k).querySelector('.found').textContent; },
    tip: function (k) {
      var t = root(k).querySelector('.tip');
      return t.getAttribute('display') === 'none' ? null :
        Array.from(t.querySelectorAll('.card > div')).map(function (e) { return e.textContent; });
    },
    active: function () {
      var e = document.activeElement;
      return e && e.matches && e.matches('.f') ? name(e) : e ? e.localName : null;
    },
    view: function (kind, k) {
      var c = root(k).querySelector('select');
      c.value = kind; c.dispatchEvent(new Event('change'));
    },
    push: function (css, k) {
      var b = root(k).querySelector('button.' + css);
      if (!b.hidden) b.click();
      return !b.hidden;
    },
    rows: function (k) {
      return Array.from(root(k).querySelectorAll('.hot tbody tr')).filter(function (tr) {
        return !tr.hidden;
      }).map(function (tr) {
        return Array.from(tr.children).map(function (e) { return e.textContent; });
      });
    },
    set: function (text, k) {
      var i = root(k).querySelector('input');
      i.value = text; i.dispatchEvent(new Event('input'));
    }
  };
})(); true
"""

PROFILE = '''main;run;parse;malloc 10
main;run;parse 20
main;run;eval;malloc;sbrk 5
main;run;eval;call;eval;malloc 15
main;idle 50
worker;run;eval 70
worker;[libx.so+0x1234] 30
'''


class Page:
    """A picture opened on its own, with the helpers at hand."""

    def __init__(self, browser, folder):
        self.browser, self.folder = browser, folder

    def make(self, name, text=PROFILE, *arguments):
        subprocess.run([sys.executable, str(TOOL), '-', '-o', str(self.folder / name), *arguments],
                       input=text.encode(), check=True)

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding='utf-8')

    def open(self, name, fragment='', width=1000, height=700):
        self.browser.open((self.folder / name).as_uri() + fragment, width, height)
        self.browser.js(HELPERS)

    def js(self, code):
        return self.browser.js(code)

    def box(self, path, k=0):
        return self.js('T.box(%s, %d)' % (json.dumps(path), k))

    def click(self, path, k=0):
        b = self.box(path, k)
        self.browser.click(b['x'] + min(5, b['w'] / 2), b['y'] + 8)

    def near(self, path, x, w, k=0):
        b = self.box(path, k)
        if b is None:
            raise AssertionError('%s is not shown' % path)
        if abs(b['x'] - x) > 1 or abs(b['w'] - w) > 1.2:
            raise AssertionError('%s is at %.1f, %.1f wide; expected %.1f, %.1f'
                                 % (path, b['x'], b['w'], x, w))


def same(got, want, what=''):
    if got != want:
        raise AssertionError('%s: got %r, expected %r' % (what, got, want))


CHECKS = []


def check(name):
    def add(f):
        CHECKS.append((name, f))
        return f
    return add


@check('the graph fits the window and follows its size')
def _(p):
    p.open('a.svg')
    for width in (1000, 1600, 420):
        p.browser.call('Emulation.setDeviceMetricsOverride', width=width, height=700,
                       deviceScaleFactor=1, mobile=False)
        for _ in range(100):
            if abs(p.box('')['w'] - (width - 32)) < 2:
                break
            time.sleep(0.02)
        p.near('', 16, width - 32)
        p.near('main;idle', 16, (width - 32) / 4)
        same(p.js('document.documentElement.scrollWidth <= innerWidth'), True,
             'no sideways scrolling')


@check('a click zooms: the frame fills the width, ancestors are dimmed, the rest is gone')
def _(p):
    p.open('a.svg')
    same(p.js('T.root().querySelector(".reset").hidden'), True, 'no reset button before')
    p.click('main;run')
    p.near('main;run', 16, 968)
    p.near('main', 16, 968)
    p.near('main;run;eval', 16, 968 * 20 / 50)
    p.near('main;run;parse', 16 + 968 * 20 / 50, 968 * 30 / 50)
    same([p.box(s)['dim'] for s in ('', 'main', 'main;run', 'main;run;eval')],
         [True, True, False, False], 'dimmed')
    same([p.box(s) for s in ('main;idle', 'worker', 'worker;run')], [None] * 3, 'the others')
    same(p.js('getComputedStyle(T.root().querySelector(".reset")).display !== "none"'), True,
         'reset')


@check('zooming on, a click on an ancestor goes back to it, a click on the root goes all the way')
def _(p):
    p.open('a.svg')
    p.click('main;run')
    p.click('main;run;eval')
    p.near('main;run;eval', 16, 968)
    p.click('main')
    p.near('main', 16, 968)
    p.near('main;idle', 16, 968 / 2)
    p.click('')
    p.near('main', 16, 968 / 2)
    same(len(p.js('T.shown()')), 16, 'frames shown')


@check('the reset button restores the whole picture')
def _(p):
    p.open('a.svg')
    before = [p.box(s) for s in ('', 'main;run;eval', 'worker;run')]
    p.click('main;run;eval;call')
    b = p.js('(function(){var r=T.root().querySelector(".reset").getBoundingClientRect();'
             'return [r.x+r.width/2,r.y+r.height/2]})()')
    p.browser.click(*b)
    p.browser.move(2, 2)
    same([p.box(s) for s in ('', 'main;run;eval', 'worker;run')], before, 'boxes')
    same(p.js('location.hash'), '', 'address')


@check('the matched percentage counts nested matches once')
def _(p):
    p.open('a.svg')
    p.js('T.set("^eval$")')
    same(p.js('T.hits()'), ['eval', 'eval', 'eval'], 'matches')
    same(p.js('T.found()'), 'Matched 45.00%', 'share')
    p.js('T.set("malloc|sbrk|eval")')
    same(p.js('T.found()'), 'Matched 50.00%', 'share')
    p.js('T.set("all")')
    same(p.js('T.found()'), 'Matched 15.00%', 'the root frame is no match for "all"')
    p.click('main;run')
    same(p.js('T.found()'), 'Matched 15.00% \u00b7 60.00% of the view', 'share of the view')
    p.js('T.set("^main$")')
    same(p.js('T.found()').split('\u00b7 ')[1], '100.00% of the view', 'inside a match')
    p.js('T.set("")')
    same([p.js('T.found()'), p.js('T.hits()')], ['', []], 'cleared')


@check('search takes regular expressions, ignores case until told, and says when one is wrong')
def _(p):
    p.open('a.svg')
    p.js('T.set("MALLOC$")')
    same(len(p.js('T.hits()')), 3, 'ignoring case')
    p.js('T.root().querySelector(".case").click()')
    same(p.js('T.hits()'), [], 'matching case')
    p.js('T.set("(")')
    same([p.js('T.found()'), p.js('T.hits()'),
          p.js('T.root().querySelector("input").getAttribute("aria-invalid")')],
         ['Not a regular expression', [], 'true'], 'invalid')
    p.js(r'T.set("\\[libx")')
    same([p.js('T.hits()'), p.js('T.found()')], [['[libx.so+0x1234]'], 'Matched 15.00%'],
         'valid again')


@check('Enter and Shift+Enter go from match to match and around, out of the zoom if need be')
def _(p):
    p.open('a.svg')
    p.click('main;idle')
    p.browser.key('/')
    p.js('T.set("^eval$")')
    seen = []
    for shift in (False, False, False, False, True):
        p.browser.key('Enter', modifiers=8 if shift else 0)
        seen.append(p.js('T.found()').split(' \u00b7 ')[0])
    same(seen, ['1 of 3', '2 of 3', '3 of 3', '1 of 3', '3 of 3'], 'where it is')
    same(p.js('T.root().querySelector(".frames [tabindex]").getAttribute("aria-label").split(",")[0]'),
         'eval', 'the frame that has the keyboard')
    same(p.js('document.activeElement.tagName.toLowerCase()'), 'input', 'typing goes on')


@check('a click marks every frame of that name; c copies the name, C the stack')
def _(p):
    p.open('a.svg')
    p.click('main;run;eval')
    same(p.js('T.root().querySelectorAll(".twin").length'), 3, 'marked')
    p.js('window.copied = []; Object.defineProperty(navigator, "clipboard", {configurable: true, '
         'value: {writeText: function (t) { copied.push(t); return Promise.resolve(); }}})')
    p.browser.key('c')
    p.browser.key('C', modifiers=8)
    same(p.js('copied'), ['eval', 'main;run;eval'], 'copied')
    same(p.js('T.found()'), 'Stack copied', 'said')
    p.browser.key('Escape')
    same(p.js('T.root().querySelectorAll(".twin").length'), 0, 'marked after Escape')


@check('where frames were left out the matched percentage is given as a lower bound')
def _(p):
    p.make('least.svg', PROFILE, '--minwidth', '40')
    p.open('least.svg')
    p.js('T.set("run")')
    same(p.js('T.found()'), 'Matched \u2265 60.00%', 'bound')


@check('hovering shows name, total, self and shares, inside the window; native tooltips are gone')
def _(p):
    p.open('a.svg')
    b = p.box('main;run;parse')
    p.browser.move(b['x'] + 30, b['y'] + 8)
    same(p.js('T.tip()'), ['parse', 'total 30 samples (15.00%)', 'self 20 samples (10.00%)',
                           '60.00% of run'], 'tooltip')
    p.browser.move(983, p.box('worker')['y'] + 8)
    r = p.js('(function(){var r=T.root().querySelector(".card").getBoundingClientRect();'
             'return [r.left>=0, r.right<=innerWidth, r.top>=0, r.bottom<=innerHeight]})()')
    same(r, [True] * 4, 'inside the window')
    same(p.js('T.root().querySelectorAll(".frames title").length'), 0, 'native titles')
    p.browser.move(500, 66)
    same(p.js('T.tip()'), None, 'gone when the pointer leaves')


@check('arrows walk the tree, Enter zooms, Escape leaves, with visible focus')
def _(p):
    p.open('a.svg')
    p.js('T.find("").focus()')
    same(p.js('T.active()'), 'all', 'start')
    steps = [('ArrowUp', 'main'), ('ArrowRight', 'worker'), ('ArrowUp', 'run'), ('ArrowUp', 'eval'),
             ('ArrowDown', 'run'), ('ArrowLeft', '[libx.so+0x1234]'), ('ArrowLeft', 'run'),
             ('ArrowLeft', 'idle'), ('ArrowLeft', 'idle'),
             ('ArrowRight', 'run'), ('ArrowUp', 'parse'), ('ArrowLeft', 'eval')]
    for key, want in steps:
        p.browser.key(key)
        same(p.js('T.active()'), want, 'after ' + key)
    same(p.js('parseFloat(getComputedStyle(document.activeElement.querySelector("rect"))'
              '.strokeWidth) >= 2'),
         True, 'focus ring')
    same(p.js('T.tip()[0]'), 'eval', 'the tooltip follows the keyboard')
    p.browser.key('Enter')
    p.near('main;run;eval', 16, 968)
    same(p.js('T.active()'), 'eval', 'the focus stays')
    p.js('T.set("malloc")')
    p.browser.key('Escape')
    p.near('main', 16, 968 / 2)
    same(p.js('T.found()'), 'Matched 15.00%', 'the first Escape leaves the search')
    p.browser.key('Escape')
    same(p.js('T.found()'), '', 'the second clears it')
    same(p.js('document.querySelectorAll(".f[tabindex]").length'), 1, 'one tab stop')


@check('Callers shows the tree from the leaf, with the shares of a model, and zooms and searches')
def _(p):
    p.open('a.svg')
    p.js('T.view("other")')
    # leaves by name: [libx.so+0x1234] 30, eval 70, idle 50, malloc 10 + 15, parse 20, sbrk 5
    unit = 968 / 200
    p.near('[libx.so+0x1234]', 16, 30 * unit)
    p.near('eval', 16 + 30 * unit, 70 * unit)
    p.near('malloc', 16 + 150 * unit, 25 * unit)
    p.near('malloc;eval', 16 + 150 * unit, 15 * unit)
    p.near('malloc;eval;call;eval;run;main', 16 + 150 * unit, 15 * unit)
    p.near('malloc;parse;run;main', 16 + 165 * unit, 10 * unit)
    same(p.box('malloc')['label'], 'malloc, total 25 samples (12.50%)', 'label')
    same(p.js('T.found()'), '', 'nothing searched')
    p.js('T.set("^call$")')
    same(p.js('T.found()'), 'Matched 7.50%', 'search')
    p.click('malloc')
    p.near('malloc', 16, 968)
    p.near('malloc;parse', 16 + 968 * 15 / 25, 968 * 10 / 25)
    fragment = p.js('location.hash')
    p.open('a.svg', fragment, 600)
    p.near('malloc;parse', 16 + 568 * 15 / 25, 568 * 10 / 25)
    same(p.js('T.found()'), 'Matched 7.50% \u00b7 60.00% of the view', 'search restored')
    p.browser.key('Escape')
    p.browser.key('Escape')
    p.browser.key('Escape')
    p.near('main', 16, 568 / 2)
    same(p.browser.errors(), [], 'errors')


@check('a sandwich has who calls a function and what it calls; every occurrence counts once')
def _(p):
    p.open('a.svg')
    p.js('T.view("sandwich")')
    same([p.js('T.found()'), p.js('T.root().querySelector("select").value')],
         ['First choose a function', 'drawn'], 'nothing was chosen')
    p.click('main;run;eval')
    p.browser.key('s')
    # of 90: 5 through malloc;sbrk, 15 through call;eval;malloc, 70 itself; by main's run 20, worker's 70
    p.near('', 16, 968)
    same(p.box('')['label'], 'eval, total 90 samples (45.00%), self 70 samples (35.00%)', 'label')
    shown = [(e, b['x'], b['w']) for e in
             ('run', 'run;main', 'run;worker', 'malloc', 'malloc;sbrk', 'call', 'call;eval;malloc')
             for b in [p.box(e)]]
    unit = 968 / 90
    for got, want in zip(shown, [(16, 90), (16, 20), (16 + 20 * unit, 70), (16 + 15 * unit, 5),
                                 (16 + 15 * unit, 5), (16, 15), (16, 15)]):
        assert abs(got[1] - want[0]) < 1 and abs(got[2] - want[1] * unit) < 1.2, (got, want)
    assert p.box('run')['y'] > p.box('')['y'] > p.box('call')['y'], 'which side is which'
    same(p.js('T.active()'), 'eval', 'it has the keyboard')
    for key, want in (('ArrowDown', 'run'), ('ArrowDown', 'worker'), ('ArrowUp', 'run'),
                      ('ArrowUp', 'eval'), ('ArrowUp', 'call'), ('ArrowDown', 'eval')):
        p.browser.key(key)
        same(p.js('T.active()'), want, 'after ' + key)
    p.js('T.set("^(eval|run)$")')
    same(p.js('T.found()'), '3 frames', 'search')
    p.js('window.copied = []; Object.defineProperty(navigator, "clipboard", {configurable: true, '
         'value: {writeText: function (t) { copied.push(t); return Promise.resolve(); }}})')
    for path in ('run;worker', 'call;eval;malloc'):
        p.js('T.push("reset")')
        p.click(path)
        p.browser.key('C', modifiers=8)
    same(p.js('copied'), ['worker;run;eval', 'eval;call;eval;malloc'], 'stacks')
    fragment = p.js('location.hash')
    p.open('a.svg', fragment, 600)
    p.near('call;eval;malloc', 16, 568)
    p.js('T.push("reset")')
    p.js('T.view("drawn")')
    p.near('main', 16, 568 / 2)
    same(p.browser.errors(), [], 'errors')


@check('the table sorts, is searched, and leads to sandwiches, by keyboard too')
def _(p):
    p.open('a.svg')
    p.js('T.view("table")')
    self_first = [['70', '35.00%', '90', '45.00%', 'eval'], ['50', '25.00%', '50', '25.00%', 'idle'],
                  ['30', '15.00%', '30', '15.00%', '[libx.so+0x1234]'],
                  ['25', '12.50%', '30', '15.00%', 'malloc'],
                  ['20', '10.00%', '30', '15.00%', 'parse'], ['5', '2.50%', '5', '2.50%', 'sbrk'],
                  ['0', '0.00%', '15', '7.50%', 'call'], ['0', '0.00%', '120', '60.00%', 'run']]
    same(p.js('T.rows()'), self_first, 'by self')
    sort = 'Array.from(document.querySelectorAll(".hot thead th")).map(function (e) ' \
           '{ return e.getAttribute("aria-sort"); })'
    same(p.js(sort), ['descending', 'none', 'none'], 'sorted')
    p.js('document.querySelectorAll(".hot thead button")[1].focus()')
    p.browser.key('Enter')
    same([r[4] for r in p.js('T.rows()')][:3], ['run', 'eval', 'idle'], 'by total')
    same(p.js(sort), ['none', 'descending', 'none'], 'sorted')
    same(p.js('document.activeElement.textContent'), 'Total', 'the focus stays')
    p.js('T.set("^(run|sbrk)$")')
    same([[r[4] for r in p.js('T.rows()')], p.js('T.found()')], [['run', 'sbrk'], '2 functions'],
         'search')
    p.js('T.set("")')
    assert p.js('document.documentElement.getBoundingClientRect().height') > 280, 'too low'
    p.js('document.querySelectorAll(".hot tbody button")[0].focus()')
    p.browser.key('Enter')
    same(p.box('')['label'].split(',')[0], 'run', 'sandwich')
    same(p.js('T.push("back")'), True, 'there is a way back')
    same(len(p.js('T.rows()')), 8, 'back in the table')
    p.open('a.svg', '#view=table&search=malloc')
    same([r[4] for r in p.js('T.rows()')], ['malloc'], 'from the address')
    same(p.js('[document.querySelectorAll(".hot table caption").length, '
              'document.querySelectorAll(".hot tbody th[scope=row]").length]'), [1, 8], 'markup')
    p.browser.key('/')
    p.browser.key('Escape')
    p.browser.key('Escape')
    p.js('document.querySelector(".hot button").focus()')
    p.browser.key('Escape')
    p.near('main', 16, 968 / 2)
    same(p.browser.errors(), [], 'errors')


@check('by weight the widest is first, and arrows follow; Flip turns it upside down')
def _(p):
    p.make('order.svg', 't;a;x 1\nt;b 5\nt;c;y 2\nt;c;z 7\nt 5\n')
    p.open('order.svg')
    before = [p.box(s) for s in ('t;a', 't;b', 't;c', 't;c;z')]
    p.js('T.push("weight")')
    unit = 968 / 20
    for path, x, w in (('t;c', 0, 9), ('t;c;z', 0, 7), ('t;c;y', 7, 2), ('t;b', 9, 5), ('t;a', 14, 1)):
        p.near(path, 16 + x * unit, w * unit)
    p.js('T.find("").focus()')
    p.browser.key('ArrowUp')
    p.browser.key('ArrowUp')
    same(p.js('T.active()'), 'c', 'the widest child')
    seen = []
    for _ in range(3):
        p.browser.key('ArrowRight')
        seen.append(p.js('T.active()'))
    p.browser.key('ArrowLeft')
    same(seen + [p.js('T.active()')], ['b', 'a', 'a', 'b'], 'arrows')
    p.js('T.push("flip")')
    assert p.box('')['y'] < p.box('t')['y'] < p.box('t;c')['y'], 'not flipped'
    p.browser.key('ArrowUp')
    same(p.js('T.active()'), 't', 'up is to the root')
    same(p.js('location.hash'), '#order=weight&flip=1', 'address')
    p.open('order.svg', '#order=weight&flip=1')
    p.near('t;c;z', 16, 7 * unit)
    assert p.box('')['y'] < p.box('t')['y'], 'not restored'
    p.js('T.push("weight"); T.push("flip")')
    p.browser.move(2, 2)
    same([p.box(s) for s in ('t;a', 't;b', 't;c', 't;c;z')], before, 'as it was')


@check('Back and Backspace undo zooms and changes of view, in a page too')
def _(p):
    p.write('back.html', '<!doctype html><meta charset="utf-8"><body style="margin:0">' +
            (p.folder / 'a.svg').read_text(encoding='utf-8').split('?>', 1)[1])
    for name in ('a.svg', 'back.html'):
        p.open(name)
        same(p.js('T.push("back")'), False, 'nothing to undo')
        p.click('main;run')
        p.js('T.view("other")')
        p.click('malloc')
        p.js('T.push("back")')
        p.near('eval', 16 + 30 * 968 / 200, 70 * 968 / 200)
        p.js('T.find("").focus()')
        p.browser.key('Backspace')
        p.near('main;run', 16, 968)
        p.js('T.push("back")')
        p.near('main', 16, 968 / 2)
        same(p.js('T.push("back")'), False, 'all undone')


@check('the buttons for the next and previous match are there when there are matches')
def _(p):
    p.open('a.svg')
    same([p.js('T.push("next")'), p.js('T.push("last")')], [False, False], 'before')
    p.js('T.set("^eval$")')
    seen = []
    for css in ('next', 'next', 'last'):
        p.js('T.push("%s")' % css)
        seen.append(p.js('T.found()').split(' \u00b7 ')[0])
    same(seen, ['1 of 3', '2 of 3', '1 of 3'], 'where it is')


@check('with scripts off the picture is whole and has no controls')
def _(p):
    p.browser.call('Emulation.setScriptExecutionDisabled', value=True)
    try:
        p.browser.call('Page.navigate', url=(p.folder / 'a.svg').as_uri())
        time.sleep(1)
        document = p.browser.call('DOM.getDocument', depth=-1)['root']
        names, live = [], []

        def walk(node):
            a = node.get('attributes', [])
            a = dict(zip(a[::2], a[1::2]))
            names.append((node['nodeName'], a.get('class', ''), a.get('display')))
            live.extend(c for c in a.get('class', '').split() if c == 'live')
            for child in node.get('children', []):
                walk(child)
        walk(document)
        same(live, [], 'signs of a script')
        same(len([1 for n, c, d in names if n == 'g' and c.split()[:1] == ['f'] and not d]), 16,
             'frames')
        same([n for n, _, _ in names if n.lower() in ('input', 'button', 'select', 'foreignobject')],
             [], 'controls')
        picture = p.browser.call('Page.captureScreenshot', format='png')['data']
        assert len(picture) > 8000, 'the picture is empty'
    finally:
        p.browser.call('Emulation.setScriptExecutionDisabled', value=False)


@check('a pruned profile of 100,000 stacks opens, zooms and switches; its frame budget is printed')
def _(p):
    made = subprocess.run([sys.executable, str(HERE.parent / 'bench' / 'folded.py'), '--lines', '120000',
                           '--stacks', '100000'], check=True, stdout=subprocess.PIPE).stdout
    (p.folder / 'big.folded').write_bytes(made)
    subprocess.run([sys.executable, str(TOOL), str(p.folder / 'big.folded'), '-o',
                    str(p.folder / 'big.svg')], check=True)
    size = (p.folder / 'big.svg').stat().st_size
    assert size < 2000000, '%d bytes' % size
    p.open('big.svg')
    n = len(p.js('T.shown()'))
    assert n > 4000, '%d frames' % n
    took = p.js('''(async function () {
      var out = [], all = document.querySelectorAll(".frames > g");
      for (var i of [3, 0, 40, 0]) {
        var t = performance.now();
        T.press(all[i]);
        await new Promise(requestAnimationFrame);       // style, layout and paint are in it
        await new Promise(requestAnimationFrame);
        out.push(Math.round(performance.now() - t));
      }
      for (var view of ["other", "table", "drawn"]) {
        t = performance.now();
        T.view(view);
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        out.push(view + " " + Math.round(performance.now() - t));
      }
      return out.join(", ");
    })()''')
    print('# %d kB, %d frames; ms to the frame after a zoom in, out, in, out, and a change of view: %s'
          % (size // 1000, n, took))
    same(len(p.js('T.shown()')), n, 'frames shown again')
    same(p.browser.errors(), [], 'errors')


@check('in an icicle the arrows point the other way')
def _(p):
    p.make('ice.svg', PROFILE, '--inverted')
    p.open('ice.svg')
    p.js('T.find("").focus()')
    p.browser.key('ArrowDown')
    same(p.js('T.active()'), 'main', 'down')
    p.browser.key('ArrowUp')
    same(p.js('T.active()'), 'all', 'up')
    assert p.box('')['y'] < p.box('main')['y'], 'the root is not on top'


@check('slash and Ctrl-F go to the search field, typing searches, Escape clears')
def _(p):
    for key, modifiers in (('/', 0), ('f', 2)):
        p.open('a.svg')
        p.browser.key(key, modifiers)
        same(p.js('T.active()'), 'input', 'after ' + key)
        p.browser.type('idle')
        same(p.js('T.found()'), 'Matched 25.00%', 'typed')
        p.browser.key('Escape')
        same([p.js('T.found()'), p.js('T.root().querySelector("input").value')], ['', ''],
             'cleared')


@check('the Tab key reaches search, case and the frames')
def _(p):
    p.open('a.svg')
    seen = []
    for _ in range(8):
        p.browser.key('Tab')
        seen.append(p.js('T.active()'))
    for want in ('input', 'button', 'all'):
        assert want in seen, '%s not among %s' % (want, seen)


@check('the address keeps zoom by path and search, and restores them in another size and order')
def _(p):
    p.open('a.svg')
    p.click('main;run;eval')
    p.js('T.set("malloc")')
    fragment = p.js('location.hash')
    assert 'main' in fragment and 'eval' in fragment and 'malloc' in fragment, fragment
    p.make('b.svg', 'aaa;x 100\n' + PROFILE)
    p.open('b.svg', fragment, 600)
    p.near('main;run;eval', 16, 568)
    same(p.js('T.found()').split('\u00b7')[1].strip(), '100.00% of the view', 'search')
    same(p.js('T.root().querySelector("input").value'), 'malloc', 'field')


@check('names with any character survive the address')
def _(p):
    odd = ['a&b=c', 'x#y%20', 'é 日本 😀', '<p> "q"', 'a+b', "o'k", '\\x01']
    p.make('odd.svg', ''.join('t;%s;leaf 5\n' % s for s in odd))
    for s in odd:
        p.open('odd.svg')
        p.click('t;' + s)
        p.near('t;' + s, 16, 968)
        p.open('odd.svg', p.js('location.hash'))
        p.near('t;' + s, 16, 968)
        same(p.browser.errors(), [], 'errors')


@check('a stale or broken address is ignored')
def _(p):
    for fragment in ('#zoom=gone%3Bfunction', '#zoom=%E0%A4', '#zoom=', '#zoom=main%3Bgone',
                     '#x=1&zoom',
                     '#search=%5B', '#zoom=%02zz.zz', '#zoom=;;;', '#=&&='):
        p.open('a.svg', fragment)
        p.near('main', 16, 968 / 2)
        same(p.browser.errors(), [], 'errors at ' + fragment)


@check('parts of the address that are not the graph\'s are left alone, and Back undoes a zoom')
def _(p):
    p.open('a.svg', '#chapter=2')
    p.click('main')
    same(p.js('location.hash'), '#chapter=2&zoom=main', 'address')
    p.click('main;run')
    p.js('history.back()')
    for _ in range(100):
        if p.js('location.hash') == '#chapter=2&zoom=main' and p.box('main;idle'):
            break
        time.sleep(0.02)
    p.near('main;idle', 16, 968 / 2)


@check('paths too long for an address are kept as a digest that works')
def _(p):
    deep = ';'.join('a_rather_long_function_name_%d' % i for i in range(300))
    p.make('deep.svg', 't;%s;x 1\nt;%s;y 1\n' % (deep, deep))
    p.open('deep.svg')
    p.js('T.press(T.find(%s))' % json.dumps('t;%s;y' % deep))
    fragment = p.js('location.hash')
    assert 10 < len(fragment) < 100, fragment
    p.open('deep.svg', fragment)
    p.near('t;%s;y' % deep, 16, 968)
    same(p.box('t;%s;x' % deep), None, 'the sibling')


@check('same-named neighbours of a flame chart are told apart by the address')
def _(p):
    p.make('chart.svg', 't;a;x 1\nt;b 1\nt;a;y 1\n', '--flamechart')
    p.open('chart.svg')
    p.js('T.press(T.root().querySelectorAll(".frames > g")[5])')
    p.open('chart.svg', p.js('location.hash'))
    same(p.js('T.shown()'), ['all', 't', 'a', 'y'], 'frames')


@check('text is fitted by code point: never half a character, never wider than its frame')
def _(p):
    names = ['😀' * 60, '日本語' * 40, 'abc_def' * 20, '\U0001D4D0b' * 50]
    p.make('text.svg', ''.join('t;%s %d\n' % (s, 3 + i) for i, s in enumerate(names)))
    p.make('near.svg', ''.join('t;%02d%s 1\n' % (k, 'm' * k) for k in range(2, 14)))
    for name, width in [('text.svg', 1000), ('text.svg', 500), ('text.svg', 333)] + \
            [('near.svg', w) for w in range(700, 1300, 50)]:
        p.open(name, '', width)
        bad = p.js('''Array.from(document.querySelectorAll(".frames > g")).filter(function (e) {
            var t = e.querySelector("text"), r = e.querySelector("rect");
            if (!t || !t.textContent) return false;
            return /[\\ud800-\\udbff](?![\\udc00-\\udfff])|(^|[^\\ud800-\\udbff])[\\udc00-\\udfff]/
              .test(t.textContent) || t.getComputedTextLength() > +r.getAttribute("width");
          }).length''')
        same(bad, 0, 'bad labels at %d' % width)
        same(p.js('Array.from(document.querySelectorAll(".frames text")).filter(function (t) '
                  '{ return t.textContent.endsWith("\u2026"); }).length >= 2'), True,
                  'labels that are cut')


@check('in an <img> the picture is complete and has no controls')
def _(p):
    p.write('img.html',
            '<body style="margin:0;background:#fff"><img id="i" src="a.svg" width="1200">')
    p.open('img.html', '', 1200)
    # A canvas reads back what was really painted. Files may read each other here (a flag above).
    seen = p.js('''(function () {
      var i = document.getElementById("i"), c = document.createElement("canvas");
      c.width = i.naturalWidth; c.height = i.naturalHeight;
      var g = c.getContext("2d"); g.drawImage(i, 0, 0);
      function count(x0, y0, x1, y1, paper) {
        var d = g.getImageData(x0, y0, x1 - x0, y1 - y0).data, n = 0;
        for (var k = 0; k < d.length; k += 4)
          if (Math.abs(d[k] - 255) + Math.abs(d[k+1] - 253) + Math.abs(d[k+2] - 250) > 30) n++;
        return n / (d.length / 4);
      }
      return [c.width, count(16, 10, 300, 60), count(700, 0, 1200, 62), count(16, 162, 1184, 180)];
    })()''')
    same(seen[0], 1200, 'width')
    assert seen[1] > 0.02, 'no title: %s' % seen
    same(seen[2], 0, 'painted where the controls would be')
    assert seen[3] > 0.9, 'the frames are missing: %s' % seen


@check('several graphs inside one page work without disturbing each other or the page')
def _(p):
    p.make('two.svg', 'other;x 3\nother;y 1\nmain;run 4\n', '--colors', 'io')
    inline = [(p.folder / n).read_text(encoding='utf-8').split('?>', 1)[1]
              for n in ('a.svg', 'two.svg', 'a.svg')]
    p.write('page.html',
            '<!doctype html><meta charset="utf-8"><body style="margin:0">'
            '<input id="mine"><div style="padding:0 50px">%s</div><div>%s</div><div>%s</div>'
            % tuple(inline))
    p.open('page.html', '#top', 1000, 1400)
    same(p.js('document.querySelectorAll("svg.live").length'), 3, 'live graphs')
    p.near('', 66, 868, 0)
    p.near('', 16, 968, 1)
    p.click('main', 0)
    p.near('main', 66, 868, 0)
    p.near('main', 16, 968 / 2, 1)
    p.near('main', 16, 968 / 2, 2)
    p.js('T.set("^x$", 1)')
    same([p.js('T.found(%d)' % k) for k in range(3)], ['', 'Matched 37.50%', ''], 'search')
    assert p.js('location.hash').startswith('#top&'), p.js('location.hash')
    fragment = p.js('location.hash')
    p.open('page.html', fragment, 1000, 1400)
    p.near('main', 66, 868, 0)
    p.near('main', 16, 968 / 2, 2)
    same(p.js('T.found(1)'), 'Matched 37.50%', 'restored')
    same(p.js('getComputedStyle(document.getElementById("mine")).borderRadius'), '0px',
         'page style')
    p.js('document.getElementById("mine").focus()')
    p.browser.key('/')
    same(p.js('document.activeElement.id + document.activeElement.value'), 'mine/', 'page keys')
    same(p.js('[T.root(1).querySelectorAll("title").length, T.root(1).getAttribute("aria-label")]'),
         [0, 'Flame graph'], 'a root title would be a tooltip all over the page')
    same(p.browser.errors(), [], 'errors')


@check('inside an <object> and an <iframe> it is alive and fits the box')
def _(p):
    p.write('object.html',
            '<body style="margin:0">'
            '<object data="a.svg" width="700" height="300"></object>'
            '<iframe src="a.svg" width="500" height="300" style="border:0"></iframe>')
    p.open('object.html', '', 1300, 500)
    for tag, width in (('object', 700), ('iframe', 500)):
        w = p.js('document.querySelector("%s").contentDocument.querySelector(".frames rect")'
                 '.getBoundingClientRect().width' % tag)
        assert abs(w - (width - 32)) < 20, '%s: %s' % (tag, w)
    same(p.browser.errors(), [], 'errors')


@check('in a dark scheme paper, text and dimmed frames change; contrast stays 4.5:1')
def _(p):
    p.open('a.svg')
    look = '''(function () {
      function rgb(s) { return s.match(/[\\d.]+/g).slice(0, 3).map(Number); }
      function lum(s) { var c = rgb(s).map(function (v) { v /= 255;
        return v <= .04045 ? v / 12.92 : Math.pow((v + .055) / 1.055, 2.4); });
        return .2126 * c[0] + .7152 * c[1] + .0722 * c[2]; }
      function ratio(a, b) { a = lum(a); b = lum(b);
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }
      function fill(e) { return getComputedStyle(e).fill; }
      var paper = fill(T.root().querySelector(".paper")), low = 99, n = 0;
      T.root().querySelectorAll(".frames > g").forEach(function (e) {
        var t = e.querySelector("text");
        if (!t || !t.textContent) return;
        n++;
        low = Math.min(low, ratio(fill(e.querySelector("rect")), fill(t)));
      });
      T.root().querySelectorAll(".head > text, .foot text").forEach(function (t) {
        if (t.textContent) { n++; low = Math.min(low, ratio(paper, fill(t))); }
      });
      return [lum(paper), low, n];
    })()'''
    try:
        for scheme in ('light', 'dark'):
            p.browser.call('Emulation.setEmulatedMedia',
                           features=[{'name': 'prefers-color-scheme', 'value': scheme}])
            for zoomed in (False, True):
                p.open('a.svg', '#zoom=main%3Brun&search=eval' if zoomed else '')
                paper, low, n = p.js(look)
                assert (paper < 0.1) == (scheme == 'dark'), '%s paper %s' % (scheme, paper)
                assert low >= 4.5 and n > 6, '%s: lowest contrast %.2f of %d' % (scheme, low, n)
    finally:
        p.browser.call('Emulation.setEmulatedMedia', features=[])


@check('assistive technology gets a tree with levels, labels and a status')
def _(p):
    p.open('a.svg')
    same(p.js('''[T.root().getAttribute("role"),
        T.root().querySelector(".frames").getAttribute("role"),
        T.find("main;run").getAttribute("role"), T.find("main;run").getAttribute("aria-level"),
        T.find("main;run").getAttribute("aria-label"),
        T.root().querySelector("input").getAttribute("aria-label") !== "",
        T.root().querySelector(".found").getAttribute("role")]'''),
         ['group', 'tree', 'treeitem', '3',
          'run, total 50 samples (25.00%), self 0',
          True, 'status'], 'roles')


@check('the controls stay in sight while a tall graph scrolls')
def _(p):
    p.make('tall.svg', 't;%s 1\n' % ';'.join('f%d' % i for i in range(400)))
    p.open('tall.svg')
    assert p.js('scrollY') > 1000, 'a very tall flame starts at its root'
    for y in (0, 2000, 99999):
        p.js('scrollTo(0, %d)' % y)
        time.sleep(0.1)
        p.js('new Promise(function (r) { requestAnimationFrame('
             'function () { requestAnimationFrame(r); }); })')
        top = p.js('T.root().querySelector("input").getBoundingClientRect().top')
        assert 0 <= top < 80, 'the field is at %s after scrolling to %d' % (top, y)


@check('hostile names run nothing, in the picture and in its tooltips')
def _(p):
    bad = ['<img src=x onerror="window.hacked=1">', '</script><script>window.hacked=1</script>',
           ']]><script>window.hacked=1</script>', '"><g onload="window.hacked=1">', '&lt&#60b>']
    p.make('evil.svg', ''.join('t;%s 5\n' % s for s in bad), '--title', bad[1], '--notes', bad[2])
    for name in bad:
        p.open('evil.svg')
        p.click('t;' + name)
        b = p.box('t;' + name)
        p.browser.move(b['x'] + 99, b['y'] + 8)
        same(p.js('T.tip()[0]'), name, 'tooltip')
    page = (p.folder / 'evil.svg').read_text(encoding='utf-8').split('?>', 1)[1]
    p.write('evil.html', '<!doctype html><meta charset="utf-8">' + page)
    p.open('evil.html')
    same(p.js('[document.querySelectorAll("svg.live").length, window.hacked === undefined, '
              'document.querySelectorAll("img").length]'), [1, True, 0], 'inside a page')
    same(p.browser.errors(), [], 'errors')


@check('no script errors or warnings in any mode')
def _(p):
    for name, arguments in (('m1', []), ('m2', ['--inverted', '--reverse']),
                            ('m3', ['--flamechart']),
                            ('m4', ['--width', '200', '--height', '8']),
                            ('m5', ['--height', '100']),
                            ('m6', ['--colors', 'hash', '--no-threads'])):
        p.make(name + '.svg', PROFILE, *arguments)
        p.open(name + '.svg')
        p.js('T.set("a")')
        p.js('T.press(T.root().querySelectorAll(".frames > g")[3])')
        same(p.browser.errors(), [], name)
        assert len(p.js('T.shown()')) >= 3, 'nothing is shown'


@check('50,000 frames zoom and search')
def _(p):
    tail = ';'.join('d%d' % k for k in range(8))
    text = ''.join('t;g%d;f%d;%s 1\n' % (i // 100, i, tail) for i in range(5000))
    p.make('many.svg', text, '--minwidth', '0')
    p.open('many.svg')
    n = len(p.js('T.shown()'))
    assert n > 45000, '%d frames' % n
    took = p.js('''(function () { var t = performance.now();
      T.press(T.find("t;g7"));
      T.set("f70"); return performance.now() - t; })()''')
    print('# zoom and search of %d frames: %d ms' % (n, took))
    for _ in range(200):        # a large graph is searched when the typing stops
        if p.js('T.found()'):
            break
        time.sleep(0.1)
    same(p.js('T.found()'), 'Matched 0.22% \u00b7 10.00% of the view', 'f70 and f700 to f709')


def main():
    program = find_browser()
    if not program or os.name != 'posix':
        for name, _ in CHECKS:
            print('skip - %s: no Chromium here' % name)
        return 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) if sys.version_info >= (3, 10) \
            else tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / 'profile').mkdir()
        try:
            browser = Browser(program, str(folder / 'profile'))
        except (OSError, TimeoutError, RuntimeError) as e:
            report('the browser starts', e)
            return 1
        try:
            page = Page(browser, folder)
            page.make('a.svg')
            for name, f in CHECKS:
                if len(sys.argv) > 1 and sys.argv[1] not in name:
                    continue
                try:
                    f(page)
                    report(name)
                except Exception as e:      # a check must not take the others down with it
                    report(name, '%s: %s' % (type(e).__name__, e))
        finally:
            browser.close()
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
