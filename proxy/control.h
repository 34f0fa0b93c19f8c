/*
 * The broker's end of the control socket (wire/proxy_control.h): what it tells at the start, and
 * what a person allows or takes back while the session runs.
 */
#ifndef PROXY_CONTROL_H
#define PROXY_CONTROL_H

#include "proxy/services.h"

#include <stdbool.h>

struct control;

/* `fd` may be -1: nothing is told, and nothing ends the broker but a signal. 0 or a negative errno.
 */
int control_new(const struct services *services, int fd, struct control **ret_control);
void control_free(struct control *control);
/* The placeholders, then the certificate. 0 or a negative errno. */
int control_tell_ready(struct control *control, const char *certificate);
/* The other end was closed: finish. */
bool control_has_ended(const struct control *control);

#endif
