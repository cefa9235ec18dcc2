#include "core.h"
void probe_memory(void){}
