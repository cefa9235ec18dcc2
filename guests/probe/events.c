/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"
void probe_events(void){}
