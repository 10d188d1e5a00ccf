# SPDX-License-Identifier: Apache-2.0
#
# The chat page: its files and three libraries of this machine, gathered in one folder, and its tests.

PAGE_FILES := $(wildcard src/api/page/*)

# The folder is made again when a file of it changes, or when a library came to this machine.
PAGE_LIBS  := $(wildcard /usr/share/javascript/marked/*.js /usr/share/nodejs/dompurify/dist/purify.min.js \
                /usr/share/javascript/highlight.js/highlight.min.js)
$(BUILD)/page/index.html: $(PAGE_FILES) $(PAGE_LIBS) scripts/page_libs.sh
	@scripts/page_libs.sh $(BUILD)/page
	@touch $@

page: $(BUILD)/page/index.html

# In a browser without a window (Debian: chromium, chromium-driver), against a scripted server and against the
# program itself. Needs network the first time, for selenium.
VENV_PAGE := $(BUILD)/venv-page
$(VENV_PAGE)/.ready:
	python3 -m venv $(VENV_PAGE)
	$(VENV_PAGE)/bin/pip install -q selenium
	@touch $@

# ONLY=WORD: the tests whose name contains it.
# The scripted server and the program at the same time: each waits much.
test-page: page $(BUILD)/squish $(VENV_PAGE)/.ready
	@status=0; \
	$(VENV_PAGE)/bin/python tests/page/test_page.py --page $(BUILD)/page --only "$(ONLY)" >$(BUILD)/test-page.log 2>&1 & \
	$(VENV_PAGE)/bin/python tests/page/test_real.py --squish $(BUILD)/squish --only "$(ONLY)" || status=1; \
	$(VENV_PAGE)/bin/python tests/page/test_report.py --squish $(BUILD)/squish || status=1; \
	wait $$! || status=1; \
	cat $(BUILD)/test-page.log; \
	exit $$status

# The pictures of docs/page.md.
page-images: page $(VENV_PAGE)/.ready
	@$(VENV_PAGE)/bin/python tests/page/screenshots.py --page $(BUILD)/page --out docs/img

.PHONY: page test-page page-images
