/* guest-fused as a program of its own, for a host's mounts. In the guest it is part of guest-init,
 * of one file with it. */
#include "guest-fused/daemon.h"

int main(int argc, char **argv)
{
	return fused_main(argc, argv);
}
