/* The least that an init can do: the peer of bench/boot. */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	sync();
	return reboot(RB_AUTOBOOT);
}
