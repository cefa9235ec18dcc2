#include "core.h"
void probe_insns(void){}
