/*
 * The guest's serial port: a 16550A of which only the transmitter is connected. It holds the
 * registers that Linux's 8250 driver probes for and transmits with, the interrupt of an empty
 * transmitter, and loopback.
 *
 * Source: National Semiconductor PC16550D data sheet, section 8 (registers).
 *
 * What the guest transmits is written to a descriptor at once, a byte at a time. When that is full
 * the vCPU waits for its reader, at most SERIAL_PORT_WAIT_MS; then the byte is dropped.
 */
#ifndef VMM_SERIAL_PORT_H
#define VMM_SERIAL_PORT_H

#include "jail/jail.h"
#include "vmm/io_bus.h"

#include <pthread.h>
#include <stdint.h>

#define SERIAL_PORT_WAIT_MS 200

/* What the guest can change; fixed width, so that it can be stored. */
struct serial_port_state {
	uint8_t interrupt_enable;
	uint8_t line_control;
	uint8_t modem_control;
	uint8_t scratch;
	uint8_t fifo_control;
	uint8_t divisor_low;
	uint8_t divisor_high;
	uint8_t transmitter_empty_pending; /* that interrupt was not yet acknowledged */
	uint8_t loopback_byte;
	uint8_t loopback_full;
	uint8_t reserved[6];
};
_Static_assert(sizeof(struct serial_port_state) == 16, "stored layout");

struct serial_port {
	pthread_mutex_t lock;
	struct serial_port_state state;
	int output;	  /* borrowed, non-blocking; -1: nowhere */
	int interrupt_fd; /* borrowed eventfd; -1: none */
};

void serial_port_init(struct serial_port *port, int output, int interrupt_fd);
void serial_port_release(struct serial_port *port);
/* For an io_range of 8 ports whose owner is the struct. */
void serial_port_read(void *port, uint64_t offset, uint8_t *data, size_t length);
void serial_port_write(void *port, uint64_t offset, const uint8_t *data, size_t length);

/* While no vCPU runs. */
struct serial_port_state serial_port_save(struct serial_port *port);
void serial_port_restore(struct serial_port *port, const struct serial_port_state *state);

/* What a vCPU thread calls in here, beside jail_calls_process. */
extern const struct jail_syscall_set serial_port_calls;

#endif
