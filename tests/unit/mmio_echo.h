/*
 * A device behind a virtio-mmio transport for tests of the transport: it notes what is asked of it
 * and echoes, that is, gives each chain back.
 */
#ifndef TESTS_UNIT_MMIO_ECHO_H
#define TESTS_UNIT_MMIO_ECHO_H

#include "tests/unit/mmio_driver.h"

#include <check.h>
#include <pthread.h>

#define CONFIG_LENGTH 12
#define FEATURE_OWN (UINT64_C(1) << 5)
#define QUEUES 2

struct echo {
	const struct virtio_transport_operations *operations;
	void *transport;
	struct virtqueue queues[QUEUES];
	bool running[QUEUES];
	bool kicked[QUEUES];
	uint64_t agreed;
	unsigned starts, stops;
	pthread_t thread;
	uint8_t config[CONFIG_LENGTH];
};

static struct driver driver;
static struct event_loop loop;
static struct echo echo;
static struct virtio_mmio *transport;
static unsigned interrupts, violations;
static const char *last_violation;

static inline void echo_attach(void *device, const struct virtio_transport_operations *operations,
			       void *context)
{
	struct echo *self = device;

	self->operations = operations;
	self->transport = context;
}

static inline uint64_t echo_features(const void *device)
{
	(void)device;
	return MMIO_FEATURES | VIRTIO_FEATURE_INDIRECT_DESC | FEATURE_OWN;
}

static inline void echo_negotiated(void *device, uint64_t features)
{
	struct echo *self = device;

	self->agreed = features;
}

static inline void echo_read_config(const void *device, size_t offset, uint8_t *output,
				    size_t length)
{
	const struct echo *self = device;

	for (size_t i = 0; i < length; i++)
		output[i] = offset + i < CONFIG_LENGTH
				    ? __atomic_load_n(&self->config[offset + i], __ATOMIC_RELAXED)
				    : 0;
}

static inline void echo_write_config(void *device, size_t offset, const uint8_t *input,
				     size_t length)
{
	struct echo *self = device;

	for (size_t i = 0; i < length && offset + i < CONFIG_LENGTH; i++)
		__atomic_store_n(&self->config[offset + i], input[i], __ATOMIC_RELAXED);
}

static inline int echo_start(void *device, unsigned queue, const struct guest_memory *memory,
			     const struct virtqueue_layout *layout)
{
	struct echo *self = device;
	int r;

	ck_assert(pthread_equal(self->thread, pthread_self()));
	ck_assert(!self->running[queue]);
	r = virtqueue_start(&self->queues[queue], memory, layout);
	self->running[queue] = r == 0;
	self->starts++;
	return r;
}

static inline void echo_stop(void *device, unsigned queue)
{
	struct echo *self = device;

	ck_assert(pthread_equal(self->thread, pthread_self()));
	self->running[queue] = false;
	self->stops++;
}

static inline void echo_kick(void *device, unsigned queue)
{
	struct echo *self = device;

	ck_assert(self->running[queue]);
	self->kicked[queue] = true;
}

static inline int echo_run(void *device)
{
	static struct virtqueue_chain chain;
	struct echo *self = device;
	int r = 0;

	for (unsigned i = 0; i < QUEUES && r == 0; i++) {
		if (!self->running[i] || !self->kicked[i])
			continue;
		self->kicked[i] = false;
		while ((r = virtqueue_pop(&self->queues[i], &chain)) > 0) {
			virtqueue_push(&self->queues[i], chain.head, 0);
			if (virtqueue_publish(&self->queues[i]))
				self->operations->interrupt(self->transport, i);
		}
		if (r < 0)
			self->operations->needs_reset(self->transport, self->queues[i].error);
		else
			self->kicked[i] = virtqueue_request_kick(&self->queues[i]);
	}
	return r;
}

static inline int echo_position(const void *device, unsigned queue, uint16_t *ret_index)
{
	const struct echo *self = device;

	return virtqueue_position(&self->queues[queue], ret_index);
}

static const struct virtio_device_operations echo_operations = {
	.name = "echo",
	.id = VIRTIO_ID_CONSOLE,
	.queue_count = QUEUES,
	.queue_size_max = 128,
	.attach = echo_attach,
	.features = echo_features,
	.negotiated = echo_negotiated,
	.read_config = echo_read_config,
	.write_config = echo_write_config,
	.start = echo_start,
	.stop = echo_stop,
	.kick = echo_kick,
	.run = echo_run,
	.position = echo_position,
};

static inline void count_interrupt(void *context)
{
	(void)context;
	interrupts++;
}

static inline void count_violation(void *context, const char *what)
{
	(void)context;
	ck_assert_ptr_nonnull(what);
	last_violation = what;
	violations++;
}

static inline void set_up_device(const struct virtio_device_operations *operations, void *device)
{
	const struct virtio_mmio_setup setup = {
		.operations = operations,
		.device = device,
		.memory = &driver.memory,
		.interrupt = count_interrupt,
		.violation = count_violation,
	};

	ck_assert_int_eq(virtio_mmio_new(&setup, &transport), 0);
	ck_assert_int_eq(virtio_mmio_start(transport, &loop), 0);
}

static inline void set_up(void)
{
	driver_init(&driver);
	ck_assert_int_eq(event_loop_init(&loop), 0);
	echo = (struct echo){ .thread = pthread_self() };
	for (uint8_t i = 0; i < CONFIG_LENGTH; i++)
		echo.config[i] = (uint8_t)(i + 1);
	set_up_device(&echo_operations, &echo);
}

static inline void tear_down(void)
{
	virtio_mmio_free(transport);
	event_loop_release(&loop);
	driver_release(&driver);
}

static inline void settle(void)
{
	for (int i = 0; i < 1000; i++) {
		int events = event_loop_run_once(&loop, 0);
		int more = virtio_mmio_run(transport);

		ck_assert_int_ge(events, 0);
		ck_assert_int_ge(more, 0);
		if (!events && !more)
			return;
	}
	ck_abort_msg("the device never comes to rest");
}

static inline uint32_t status(void)
{
	return mmio_read(transport, MMIO_STATUS);
}

static inline void expect_violations(unsigned count)
{
	settle();
	ck_assert_uint_eq(violations, count);
}

#endif
