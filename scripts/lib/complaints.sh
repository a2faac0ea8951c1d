# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the kernel complains of, by the list in scripts/lib/complaints. Source it from
# the top of the checkout.

# complaint_list KIND...: the regular expressions of these kinds, one a line
complaint_list() {
	local kind
	for kind; do
		sed -n "s/^$kind\t//p" scripts/lib/complaints
	done
}

# Of the kernel's log on standard input, the lines that are complaints.
complaints_in() {
	grep -avE -f <(complaint_list except) | grep -aE -f <(complaint_list fatal report)
}
