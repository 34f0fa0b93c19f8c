/*
 * Browsers with roots of their own, which no bundle of the system reaches, take more of them by the
 * policies that an administrator sets:
 *
 *     /etc/chromium/policies/managed/matchlock.json	Chromium; the same for Chrome and others.
 *							"CACertificates", DER in base64
 *							(chromeenterprise.google/policies)
 *     /etc/firefox/policies/policies.json		Firefox. "Certificates", "Install", a file
 *							(mozilla.github.io/policy-templates)
 *
 * They are written whether there is such a browser or not, where there is an /etc: one may be
 * installed later. A file that the image has under that name stays as it is.
 */
#ifndef GUEST_INIT_BROWSER_POLICIES_H
#define GUEST_INIT_BROWSER_POLICIES_H

/* `certificate` is PEM, one alone. In the tree whose root is `root_fd`. 0 or a negative errno; what
 * the image has at these places is never the reason. */
int browser_policies_add_at(int root_fd, const char *certificate);

#endif
