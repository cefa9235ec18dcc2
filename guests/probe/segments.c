#include "core.h"
void probe_segments(void){}
