#include "core.h"
void probe_events(void){}
