/*
 * The network of a session, as the plan shows it and as the broker is told.
 */
#ifndef CLI_NETWORK_PLAN_H
#define CLI_NETWORK_PLAN_H

#include "cli/options.h"
#include "cli/plan.h"

#include <jansson.h>
#include <stdio.h>

/* Lines of --dry-run. */
void network_print(FILE *out, const struct plan *plan, const struct run_options *options);
/* For --json: "none", or an object. */
json_t *network_plan_json(const struct plan *plan, const struct run_options *options);
/* The broker's configuration, which may hold an upstream proxy's password. */
json_t *network_broker_json(const struct plan *plan, const struct run_options *options);

#endif
