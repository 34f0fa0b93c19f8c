/*
 * Theory of operation
 *
 * Each access is an exit of a vCPU, and whichever vCPU it is does all of it, under the port's lock:
 * the registers are its own memory, and a byte that is transmitted goes to the descriptor at once.
 * Nothing is queued, so there is no thread, and after a guest's panic or triple fault nothing is
 * left to write. The transmitter is always empty: whoever enables its interrupt, or transmits while
 * it is enabled, gets one as an edge on the interrupt's eventfd, and reading the identity register
 * clears the reason. Received is what the guest sends itself in loopback alone, by which drivers
 * find out that there is a port.
 */
#include "vmm/serial_port.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* Registers by offset; 0 and 1 are the divisor's while DLAB is set. */
#define REGISTER_DATA 0
#define REGISTER_INTERRUPT_ENABLE 1
#define REGISTER_INTERRUPT_IDENTITY 2 /* written: FIFO control */
#define REGISTER_LINE_CONTROL 3
#define REGISTER_MODEM_CONTROL 4
#define REGISTER_LINE_STATUS 5
#define REGISTER_MODEM_STATUS 6
#define REGISTER_SCRATCH 7

#define INTERRUPT_RECEIVED 0x01
#define INTERRUPT_TRANSMITTER_EMPTY 0x02
#define IDENTITY_NONE 0x01
#define IDENTITY_TRANSMITTER_EMPTY 0x02
#define IDENTITY_RECEIVED 0x04
#define IDENTITY_FIFO 0xc0
#define FIFO_ENABLE 0x01
#define LINE_CONTROL_DIVISOR 0x80
#define MODEM_CONTROL_LOOPBACK 0x10
#define LINE_STATUS_RECEIVED 0x01
#define LINE_STATUS_IDLE 0x60	    /* transmitter and its holding register are empty */
#define MODEM_STATUS_CONNECTED 0xb0 /* carrier, data set ready, clear to send */

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_poll),
};
const struct jail_syscall_set serial_port_calls = JAIL_SET(calls);

void serial_port_init(struct serial_port *port, int output, int interrupt_fd)
{
	memset(port, 0, sizeof(*port));
	(void)pthread_mutex_init(&port->lock, NULL);
	port->output = output;
	port->interrupt_fd = interrupt_fd;
	port->state.divisor_low = 1;
}

void serial_port_release(struct serial_port *port)
{
	(void)pthread_mutex_destroy(&port->lock);
}

static void transmit(const struct serial_port *port, uint8_t byte)
{
	struct pollfd writer = { .fd = port->output, .events = POLLOUT };

	if (port->output < 0)
		return;
	/* A signal means that the vCPU is wanted: then the byte is not worth waiting for. */
	if (write(port->output, &byte, 1) < 0 && errno == EAGAIN &&
	    poll(&writer, 1, SERIAL_PORT_WAIT_MS) == 1)
		(void)!write(port->output, &byte, 1);
}

static void raise_interrupt(const struct serial_port *port)
{
	const uint64_t one = 1;

	if (port->interrupt_fd >= 0)
		(void)!write(port->interrupt_fd, &one, sizeof(one));
}

/* The transmitter is always empty, so each reason to say so is a new interrupt. */
static void transmitter_empty(struct serial_port *port)
{
	if (!(port->state.interrupt_enable & INTERRUPT_TRANSMITTER_EMPTY))
		return;
	port->state.transmitter_empty_pending = 1;
	raise_interrupt(port);
}

static void write_data(struct serial_port *port, uint8_t value)
{
	struct serial_port_state *state = &port->state;

	if (state->line_control & LINE_CONTROL_DIVISOR) {
		state->divisor_low = value;
	} else if (state->modem_control & MODEM_CONTROL_LOOPBACK) {
		state->loopback_byte = value;
		state->loopback_full = 1;
		if (state->interrupt_enable & INTERRUPT_RECEIVED)
			raise_interrupt(port);
	} else {
		transmit(port, value);
		transmitter_empty(port);
	}
}

static void write_register(struct serial_port *port, uint64_t index, uint8_t value)
{
	struct serial_port_state *state = &port->state;

	switch (index) {
	case REGISTER_DATA:
		write_data(port, value);
		break;
	case REGISTER_INTERRUPT_ENABLE:
		if (state->line_control & LINE_CONTROL_DIVISOR) {
			state->divisor_high = value;
			break;
		}
		state->interrupt_enable = value & 0x0f;
		if (!(value & INTERRUPT_TRANSMITTER_EMPTY))
			state->transmitter_empty_pending = 0;
		transmitter_empty(port);
		break;
	case REGISTER_INTERRUPT_IDENTITY:
		state->fifo_control = value;
		break;
	case REGISTER_LINE_CONTROL:
		state->line_control = value;
		break;
	case REGISTER_MODEM_CONTROL:
		state->modem_control = value & 0x1f;
		break;
	case REGISTER_SCRATCH:
		state->scratch = value;
		break;
	default:
		break; /* status registers */
	}
}

static uint8_t read_data(struct serial_port_state *state)
{
	uint8_t byte = state->loopback_byte;

	if (state->line_control & LINE_CONTROL_DIVISOR)
		return state->divisor_low;
	state->loopback_full = 0;
	state->loopback_byte = 0;
	return byte;
}

static uint8_t read_identity(struct serial_port_state *state)
{
	uint8_t fifo = state->fifo_control & FIFO_ENABLE ? IDENTITY_FIFO : 0;

	if (state->loopback_full && (state->interrupt_enable & INTERRUPT_RECEIVED))
		return fifo | IDENTITY_RECEIVED;
	if (!state->transmitter_empty_pending)
		return fifo | IDENTITY_NONE;
	state->transmitter_empty_pending = 0;
	return fifo | IDENTITY_TRANSMITTER_EMPTY;
}

/* In loopback the outputs of the modem control register are its inputs. */
static uint8_t read_modem_status(const struct serial_port_state *state)
{
	uint8_t outputs = state->modem_control;

	if (!(outputs & MODEM_CONTROL_LOOPBACK))
		return MODEM_STATUS_CONNECTED;
	return (uint8_t)((outputs & 0x01 ? 0x20 : 0) | (outputs & 0x02 ? 0x10 : 0) |
			 (outputs & 0x04 ? 0x40 : 0) | (outputs & 0x08 ? 0x80 : 0));
}

static uint8_t read_register(struct serial_port *port, uint64_t index)
{
	struct serial_port_state *state = &port->state;

	switch (index) {
	case REGISTER_DATA:
		return read_data(state);
	case REGISTER_INTERRUPT_ENABLE:
		return state->line_control & LINE_CONTROL_DIVISOR ? state->divisor_high
								  : state->interrupt_enable;
	case REGISTER_INTERRUPT_IDENTITY:
		return read_identity(state);
	case REGISTER_LINE_CONTROL:
		return state->line_control;
	case REGISTER_MODEM_CONTROL:
		return state->modem_control;
	case REGISTER_LINE_STATUS:
		return LINE_STATUS_IDLE | (state->loopback_full ? LINE_STATUS_RECEIVED : 0);
	case REGISTER_MODEM_STATUS:
		return read_modem_status(state);
	default:
		return state->scratch;
	}
}

/* A wider access is one to each of the bytes, as the ISA bus makes it. */
void serial_port_read(void *owner, uint64_t offset, uint8_t *data, size_t length)
{
	struct serial_port *port = owner;

	(void)pthread_mutex_lock(&port->lock);
	for (size_t i = 0; i < length; i++)
		data[i] = read_register(port, offset + i);
	(void)pthread_mutex_unlock(&port->lock);
}

struct serial_port_state serial_port_save(struct serial_port *port)
{
	struct serial_port_state state;

	(void)pthread_mutex_lock(&port->lock);
	state = port->state;
	(void)pthread_mutex_unlock(&port->lock);
	return state;
}

void serial_port_restore(struct serial_port *port, const struct serial_port_state *state)
{
	(void)pthread_mutex_lock(&port->lock);
	port->state = *state;
	(void)pthread_mutex_unlock(&port->lock);
}

void serial_port_write(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	struct serial_port *port = owner;

	(void)pthread_mutex_lock(&port->lock);
	for (size_t i = 0; i < length; i++)
		write_register(port, offset + i, data[i]);
	(void)pthread_mutex_unlock(&port->lock);
}
