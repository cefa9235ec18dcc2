#include "core.h"
void probe_msrs(void){}
void probe_end(const char *how){(void)how;finish(0);}
