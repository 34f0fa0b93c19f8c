/*
 * Theory of operation
 *
 * The driver's way up: status 0, then ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, one bit for each
 * write. What it may write when:
 *
 *	driver features		DRIVER, until FEATURES_OK
 *	queue registers		FEATURES_OK, until DRIVER_OK, while that queue is not ready
 *	QueueReady = 1		the same
 *	QueueReady = 0		always; the queue cannot become ready again after DRIVER_OK
 *	configuration space	DRIVER
 *	status			the next bit, FAILED, or 0
 *
 * Frozen registers are what makes the rings safe: a queue runs on the layout that was copied and
 * checked at DRIVER_OK, and nothing which is written later reaches it.
 *
 * DRIVER_OK, status 0, FAILED and QueueReady = 0 concern queues that the device thread may be in
 * the middle of. The vCPU leaves such a write as a command, wakes the device thread's loop and
 *waits until the command is done; meanwhile other vCPUs wait before they write. So a device has one
 * thread and needs no lock, and its ring of io_uring one submitter. The device thread itself (in
 * tests) carries a command out at once.
 *
 * The lock is never held while a device is called, but for features and the configuration space.
 *
 * Kick eventfds are registered edge-triggered and never read: each kick is a new edge.
 *
 * Once a queue is broken (DEVICE_NEEDS_RESET) all queues are stopped, so that whoever talks to the
 * device on the host sees it end; the driver's only way on is a reset.
 */
#include "vmm/virtio_mmio.h"

#include "base/checked.h"
#include "vmm/virtio_mmio_registers.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAGIC 0x74726976u /* "virt" */
#define VERSION 2u
#define VENDOR 0x4b4c544du /* "MTLK" */
#define CONFIG_SPACE 0x100u
#define ACCESS_MAX 8u
#define INTERRUPT_QUEUE 1u
#define INTERRUPT_CONFIG 2u
#define NO_SUCH_REGION UINT32_MAX

enum command {
	COMMAND_NONE,
	COMMAND_RESET,
	COMMAND_START,
	COMMAND_FAIL,
	COMMAND_STOP_QUEUE,
};

struct kick {
	struct event_source source; /* first */
	struct virtio_mmio *transport;
	unsigned queue;
};

struct virtio_mmio {
	struct virtio_mmio_setup setup;
	struct event_loop *loop;
	pthread_t device_thread;
	struct kick kicks[VIRTIO_DEVICE_QUEUES_MAX];
	struct event_source wake; /* a command or a violation waits */
	const char *violation;	  /* atomic; NULL when there is none to report */

	/* The device thread's own. */
	bool running[VIRTIO_DEVICE_QUEUES_MAX];
	bool broken;

	/* Behind the lock. */
	pthread_mutex_t lock;
	pthread_cond_t command_done;
	struct virtio_mmio_state state;
	enum command command;
	unsigned command_queue;
	uint64_t commands_given;
	uint64_t commands_done;
	bool live; /* between start and stop */
};

static void signal_eventfd(int fd)
{
	const uint64_t one = 1;

	/* A counter which is full already says what there is to say. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

/* Notes what the driver did wrong, for the device thread to report. */
static void note_violation(struct virtio_mmio *transport, const char *what)
{
	const char *none = NULL;

	if (__atomic_compare_exchange_n(&transport->violation, &none, what, false, __ATOMIC_ACQ_REL,
					__ATOMIC_RELAXED))
		signal_eventfd(transport->wake.fd);
}

static void report_violation(struct virtio_mmio *transport)
{
	const char *what = __atomic_exchange_n(&transport->violation, NULL, __ATOMIC_ACQ_REL);

	if (what)
		transport->setup.violation(transport->setup.context, what);
}

/* ---- what the device asks for (device thread) --------------------------------------------------
 */

static void raise_interrupt(struct virtio_mmio *transport, uint32_t cause)
{
	__atomic_fetch_or(&transport->state.interrupt_status, cause, __ATOMIC_ACQ_REL);
	transport->setup.interrupt(transport->setup.context);
}

static void device_interrupt(void *context, unsigned queue)
{
	(void)queue;
	raise_interrupt(context, INTERRUPT_QUEUE);
}

static void device_config_changed(void *context)
{
	struct virtio_mmio *transport = context;
	bool driver_listens;

	__atomic_fetch_add(&transport->state.config_generation, 1, __ATOMIC_ACQ_REL);
	pthread_mutex_lock(&transport->lock);
	driver_listens = transport->state.status & STATUS_DRIVER_OK;
	pthread_mutex_unlock(&transport->lock);
	if (driver_listens)
		raise_interrupt(transport, INTERRUPT_CONFIG);
}

static void device_needs_reset(void *context, const char *what)
{
	struct virtio_mmio *transport = context;

	if (transport->broken)
		return;
	transport->broken = true;
	pthread_mutex_lock(&transport->lock);
	transport->state.status |= STATUS_NEEDS_RESET;
	pthread_mutex_unlock(&transport->lock);
	raise_interrupt(transport, INTERRUPT_CONFIG);
	note_violation(transport, what);
}

static const struct virtio_transport_operations transport_operations = {
	.interrupt = device_interrupt,
	.config_changed = device_config_changed,
	.needs_reset = device_needs_reset,
};

/* ---- queues (device thread) --------------------------------------------------------------------
 */

static void stop_queue(struct virtio_mmio *transport, unsigned queue)
{
	if (!transport->running[queue])
		return;
	transport->setup.operations->stop(transport->setup.device, queue);
	transport->running[queue] = false;
}

static void stop_queues(struct virtio_mmio *transport)
{
	for (unsigned i = 0; i < transport->setup.operations->queue_count; i++)
		stop_queue(transport, i);
}

/* From `positions` on, or the beginning where that is NULL. Reads the state without the lock: the
 * command which is being carried out keeps writers away. */
static void start_queues(struct virtio_mmio *transport, const uint16_t *positions)
{
	const struct virtio_device_operations *operations = transport->setup.operations;
	const struct virtio_mmio_state *state = &transport->state;

	operations->negotiated(transport->setup.device, state->driver_features);
	for (unsigned i = 0; i < operations->queue_count; i++) {
		const struct virtio_mmio_queue_state *queue = &state->queues[i];
		const struct virtqueue_layout layout = {
			.descriptors = queue->descriptors,
			.available = queue->available,
			.used = queue->used,
			.size = queue->size,
			.next_available = positions ? positions[i] : 0,
			.event_index = state->driver_features & VIRTIO_FEATURE_EVENT_INDEX,
			.indirect = state->driver_features & VIRTIO_FEATURE_INDIRECT_DESC,
		};

		if (!queue->ready)
			continue;
		if (operations->start(transport->setup.device, i, transport->setup.memory,
				      &layout) < 0) {
			device_needs_reset(transport, "ring misaligned or outside guest memory");
			stop_queues(transport);
			return;
		}
		transport->running[i] = true;
		/* The driver may have filled its queue before a kick could be heard. */
		operations->kick(transport->setup.device, i);
	}
}

static void queue_kicked(struct event_source *source, uint32_t events)
{
	struct kick *kick = (struct kick *)source;
	struct virtio_mmio *transport = kick->transport;

	(void)events;
	if (transport->running[kick->queue])
		transport->setup.operations->kick(transport->setup.device, kick->queue);
}

/* ---- commands ----------------------------------------------------------------------------------
 */

/* All but the generation, which must not go back, and the selectors' neighbours in use elsewhere.
 */
static void forget_state(struct virtio_mmio_state *state)
{
	state->driver_features = 0;
	state->driver_features_beyond = 0;
	state->device_features_select = 0;
	state->driver_features_select = 0;
	state->queue_select = 0;
	state->status = 0;
	memset(state->queues, 0, sizeof(state->queues));
	__atomic_store_n(&state->interrupt_status, 0, __ATOMIC_RELEASE);
}

/* Carries out the command that waits. With the lock held, which it drops while it calls the
 * device; the command itself keeps other writers out meanwhile. */
static void execute_command(struct virtio_mmio *transport)
{
	struct virtio_mmio_state *state = &transport->state;

	if (transport->command == COMMAND_START)
		state->status |= STATUS_DRIVER_OK;
	pthread_mutex_unlock(&transport->lock);
	switch (transport->command) {
	case COMMAND_START:
		start_queues(transport, NULL);
		break;
	case COMMAND_STOP_QUEUE:
		stop_queue(transport, transport->command_queue);
		break;
	case COMMAND_RESET:
	case COMMAND_FAIL:
		stop_queues(transport);
		break;
	case COMMAND_NONE:
		break;
	}
	pthread_mutex_lock(&transport->lock);
	if (transport->command == COMMAND_RESET) {
		transport->broken = false;
		forget_state(state);
	} else if (transport->command == COMMAND_FAIL) {
		state->status |= STATUS_FAILED;
	} else if (transport->command == COMMAND_STOP_QUEUE) {
		state->queues[transport->command_queue].ready = 0;
	}
	transport->command = COMMAND_NONE;
	transport->commands_done++;
	pthread_cond_broadcast(&transport->command_done);
}

/* With the lock held and no command waiting; returns when it is done or the transport stopped. */
static void give_command(struct virtio_mmio *transport, enum command command, unsigned queue)
{
	uint64_t ticket = ++transport->commands_given;

	transport->command = command;
	transport->command_queue = queue;
	if (pthread_equal(pthread_self(), transport->device_thread)) {
		execute_command(transport);
		return;
	}
	signal_eventfd(transport->wake.fd);
	while (transport->live && transport->commands_done < ticket)
		pthread_cond_wait(&transport->command_done, &transport->lock);
}

static void woken(struct event_source *source, uint32_t events)
{
	struct virtio_mmio *transport =
		(struct virtio_mmio *)((char *)source - offsetof(struct virtio_mmio, wake));

	(void)events;
	pthread_mutex_lock(&transport->lock);
	if (transport->command != COMMAND_NONE)
		execute_command(transport);
	pthread_mutex_unlock(&transport->lock);
}

/* ---- registers ---------------------------------------------------------------------------------
 */

static uint32_t half(uint64_t value, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(value >> (32 * select));
}

static void set_half(uint64_t *value, uint32_t select, uint32_t part)
{
	*value &= ~((uint64_t)UINT32_MAX << (32 * select));
	*value |= (uint64_t)part << (32 * select);
}

static uint32_t read_register(struct virtio_mmio *transport, uint64_t offset)
{
	const struct virtio_device_operations *operations = transport->setup.operations;
	const struct virtio_mmio_state *state = &transport->state;
	bool exists = state->queue_select < operations->queue_count;

	switch (offset) {
	case REGISTER_MAGIC:
		return MAGIC;
	case REGISTER_VERSION:
		return VERSION;
	case REGISTER_DEVICE_ID:
		return operations->id;
	case REGISTER_VENDOR:
		return VENDOR;
	case REGISTER_DEVICE_FEATURES:
		return half(operations->features(transport->setup.device),
			    state->device_features_select);
	case REGISTER_QUEUE_SIZE_MAX:
		return exists ? operations->queue_size_max : 0;
	case REGISTER_QUEUE_READY:
		return exists ? state->queues[state->queue_select].ready : 0;
	case REGISTER_STATUS:
		return state->status;
	case REGISTER_REGION_LENGTH_LOW:
	case REGISTER_REGION_LENGTH_HIGH:
	case REGISTER_REGION_BASE_LOW:
	case REGISTER_REGION_BASE_HIGH:
		return NO_SUCH_REGION;
	case REGISTER_CONFIG_GENERATION:
		return __atomic_load_n(&state->config_generation, __ATOMIC_ACQUIRE);
	default:
		return 0;
	}
}

static void write_features(struct virtio_mmio *transport, uint32_t value)
{
	struct virtio_mmio_state *state = &transport->state;

	if ((state->status & (STATUS_DRIVER | STATUS_FEATURES_OK)) != STATUS_DRIVER)
		note_violation(transport, "features written outside their negotiation");
	else if (state->driver_features_select <= 1)
		set_half(&state->driver_features, state->driver_features_select, value);
	else
		state->driver_features_beyond |= value;
}

static bool features_acceptable(const struct virtio_mmio *transport)
{
	const struct virtio_mmio_state *state = &transport->state;
	uint64_t offered = transport->setup.operations->features(transport->setup.device);

	return !(state->driver_features & ~offered) && state->driver_features_beyond == 0 &&
	       (state->driver_features & VIRTIO_FEATURE_VERSION_1);
}

static void write_status(struct virtio_mmio *transport, uint32_t value)
{
	/* Each step, and what has to be in force before. */
	static const struct {
		uint32_t before;
		uint32_t bit;
	} steps[] = {
		{ 0, STATUS_ACKNOWLEDGE },
		{ STATUS_ACKNOWLEDGE, STATUS_DRIVER },
		{ STATUS_ACKNOWLEDGE | STATUS_DRIVER, STATUS_FEATURES_OK },
		{ STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK, STATUS_DRIVER_OK },
	};
	struct virtio_mmio_state *state = &transport->state;
	/* A driver writes back what it read, our own bit included. */
	uint32_t added = value & ~(state->status | STATUS_NEEDS_RESET);

	if (value == 0) {
		give_command(transport, COMMAND_RESET, 0);
		return;
	}
	if (state->status & ~value & ~(uint32_t)STATUS_NEEDS_RESET) {
		note_violation(transport, "status bit cleared without a reset");
		return;
	}
	if (added == 0)
		return;
	if (added == STATUS_FAILED) {
		give_command(transport, COMMAND_FAIL, 0);
		return;
	}
	for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
		if (added != steps[i].bit || state->status != steps[i].before)
			continue;
		if (added == STATUS_DRIVER_OK)
			give_command(transport, COMMAND_START, 0);
		else if (added != STATUS_FEATURES_OK || features_acceptable(transport))
			state->status |= added;
		return;
	}
	note_violation(transport, "status bits set out of order");
}

static void write_queue_size(struct virtio_mmio *transport, struct virtio_mmio_queue_state *queue,
			     uint32_t value)
{
	if (value == 0 || value > transport->setup.operations->queue_size_max ||
	    (value & (value - 1)) != 0)
		note_violation(transport, "queue size that is no power of two or too large");
	else
		queue->size = (uint16_t)value;
}

static void write_queue_ready(struct virtio_mmio *transport, struct virtio_mmio_queue_state *queue,
			      uint32_t value)
{
	if (value != 1)
		note_violation(transport, "QueueReady written with neither 0 nor 1");
	else if (queue->size == 0)
		note_violation(transport, "queue made ready without a size");
	else
		queue->ready = 1;
}

static void write_queue(struct virtio_mmio *transport, uint64_t offset, uint32_t value)
{
	struct virtio_mmio_state *state = &transport->state;
	struct virtio_mmio_queue_state *queue;

	if (state->queue_select >= transport->setup.operations->queue_count) {
		note_violation(transport, "register of a queue that does not exist written");
		return;
	}
	queue = &state->queues[state->queue_select];
	if (offset == REGISTER_QUEUE_READY && value == 0) {
		if (state->status & STATUS_DRIVER_OK)
			give_command(transport, COMMAND_STOP_QUEUE, state->queue_select);
		else
			queue->ready = 0;
		return;
	}
	if (!(state->status & STATUS_FEATURES_OK) || queue->ready ||
	    (state->status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET | STATUS_FAILED))) {
		note_violation(transport, "queue register written that is frozen or not yet open");
		return;
	}
	switch (offset) {
	case REGISTER_QUEUE_SIZE:
		write_queue_size(transport, queue, value);
		break;
	case REGISTER_QUEUE_READY:
		write_queue_ready(transport, queue, value);
		break;
	case REGISTER_DESCRIPTORS_LOW:
	case REGISTER_DESCRIPTORS_HIGH:
		set_half(&queue->descriptors, offset == REGISTER_DESCRIPTORS_HIGH, value);
		break;
	case REGISTER_AVAILABLE_LOW:
	case REGISTER_AVAILABLE_HIGH:
		set_half(&queue->available, offset == REGISTER_AVAILABLE_HIGH, value);
		break;
	default:
		set_half(&queue->used, offset == REGISTER_USED_HIGH, value);
		break;
	}
}

static void write_register(struct virtio_mmio *transport, uint64_t offset, uint32_t value)
{
	struct virtio_mmio_state *state = &transport->state;

	switch (offset) {
	case REGISTER_DEVICE_FEATURES_SELECT:
		state->device_features_select = value;
		break;
	case REGISTER_DRIVER_FEATURES_SELECT:
		state->driver_features_select = value;
		break;
	case REGISTER_DRIVER_FEATURES:
		write_features(transport, value);
		break;
	case REGISTER_QUEUE_SELECT:
		state->queue_select = value;
		break;
	case REGISTER_STATUS:
		write_status(transport, value);
		break;
	case REGISTER_QUEUE_SIZE:
	case REGISTER_QUEUE_READY:
	case REGISTER_DESCRIPTORS_LOW:
	case REGISTER_DESCRIPTORS_HIGH:
	case REGISTER_AVAILABLE_LOW:
	case REGISTER_AVAILABLE_HIGH:
	case REGISTER_USED_LOW:
	case REGISTER_USED_HIGH:
		write_queue(transport, offset, value);
		break;
	case REGISTER_INTERRUPT_ACK:
		__atomic_fetch_and(&state->interrupt_status, ~value, __ATOMIC_ACQ_REL);
		break;
	default:
		note_violation(transport, "register written that cannot be");
		break;
	}
}

static bool access_valid(uint64_t offset, size_t length)
{
	return length >= 1 && length <= ACCESS_MAX && offset < VIRTIO_MMIO_WINDOW &&
	       length <= VIRTIO_MMIO_WINDOW - offset;
}

void virtio_mmio_read(struct virtio_mmio *transport, uint64_t offset, void *buffer, size_t length)
{
	uint32_t value = 0;

	memset(buffer, 0, length);
	if (!access_valid(offset, length))
		return;
	if (offset < CONFIG_SPACE && (length != sizeof(value) || offset % sizeof(value) != 0))
		return;
	if (offset == REGISTER_INTERRUPT_STATUS) {
		value = __atomic_load_n(&transport->state.interrupt_status, __ATOMIC_ACQUIRE);
	} else {
		pthread_mutex_lock(&transport->lock);
		if (transport->live && offset >= CONFIG_SPACE)
			transport->setup.operations->read_config(
				transport->setup.device, offset - CONFIG_SPACE, buffer, length);
		else if (transport->live)
			value = read_register(transport, offset);
		pthread_mutex_unlock(&transport->lock);
	}
	if (offset < CONFIG_SPACE) {
		value = htole32(value);
		memcpy(buffer, &value, sizeof(value));
	}
}

static void write_config(struct virtio_mmio *transport, size_t offset, const uint8_t *bytes,
			 size_t length)
{
	const struct virtio_device_operations *operations = transport->setup.operations;

	if (!operations->write_config || !(transport->state.status & STATUS_DRIVER))
		note_violation(transport, "configuration space written that cannot be");
	else
		operations->write_config(transport->setup.device, offset, bytes, length);
}

/* Under the lock, with every command done. */
static void write_locked(struct virtio_mmio *transport, uint64_t offset, const void *buffer,
			 size_t length)
{
	uint32_t value;

	if (offset >= CONFIG_SPACE) {
		write_config(transport, offset - CONFIG_SPACE, buffer, length);
	} else if (length != sizeof(value) || offset % sizeof(value) != 0) {
		note_violation(transport, "register written other than by 32 bits");
	} else {
		memcpy(&value, buffer, sizeof(value));
		write_register(transport, offset, le32toh(value));
	}
}

/* The two that every driver writes all the time take no lock. Returns whether it was one. */
static bool write_unlocked(struct virtio_mmio *transport, uint64_t offset, const void *buffer,
			   size_t length)
{
	uint32_t value;

	if ((offset != REGISTER_INTERRUPT_ACK && offset != REGISTER_QUEUE_NOTIFY) ||
	    length != sizeof(value))
		return false;
	memcpy(&value, buffer, sizeof(value));
	value = le32toh(value);
	if (offset == REGISTER_INTERRUPT_ACK)
		__atomic_fetch_and(&transport->state.interrupt_status, ~value, __ATOMIC_ACQ_REL);
	else if (value < transport->setup.operations->queue_count)
		signal_eventfd(transport->kicks[value].source.fd);
	else
		note_violation(transport, "kick of a queue that does not exist");
	return true;
}

void virtio_mmio_write(struct virtio_mmio *transport, uint64_t offset, const void *buffer,
		       size_t length)
{
	if (!access_valid(offset, length) || write_unlocked(transport, offset, buffer, length))
		return;
	pthread_mutex_lock(&transport->lock);
	while (transport->live && transport->command != COMMAND_NONE)
		pthread_cond_wait(&transport->command_done, &transport->lock);
	if (transport->live)
		write_locked(transport, offset, buffer, length);
	pthread_mutex_unlock(&transport->lock);
}

/* ---- life (device thread) ----------------------------------------------------------------------
 */

static bool operations_valid(const struct virtio_device_operations *operations)
{
	uint16_t size = operations->queue_size_max;

	return operations->queue_count >= 1 &&
	       operations->queue_count <= VIRTIO_DEVICE_QUEUES_MAX && size > 0 &&
	       size <= VIRTQUEUE_SIZE_MAX && (size & (size - 1)) == 0;
}

static int open_eventfds(struct virtio_mmio *transport)
{
	transport->wake.ready = woken;
	transport->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (transport->wake.fd < 0)
		return -errno;
	for (unsigned i = 0; i < transport->setup.operations->queue_count; i++) {
		struct kick *kick = &transport->kicks[i];

		kick->transport = transport;
		kick->queue = i;
		kick->source.ready = queue_kicked;
		kick->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (kick->source.fd < 0)
			return -errno;
	}
	return 0;
}

int virtio_mmio_new(const struct virtio_mmio_setup *setup, struct virtio_mmio **ret_transport)
{
	struct virtio_mmio *transport;
	int r;

	if (!operations_valid(setup->operations))
		return -EINVAL;
	transport = calloc(1, sizeof(*transport));
	if (!transport)
		return -ENOMEM;
	transport->setup = *setup;
	transport->wake.fd = -1;
	for (size_t i = 0; i < VIRTIO_DEVICE_QUEUES_MAX; i++)
		transport->kicks[i].source.fd = -1;
	/* Neither fails with default attributes. */
	(void)pthread_mutex_init(&transport->lock, NULL);
	(void)pthread_cond_init(&transport->command_done, NULL);
	r = open_eventfds(transport);
	if (r < 0) {
		virtio_mmio_free(transport);
		return r;
	}
	setup->operations->attach(setup->device, &transport_operations, transport);
	*ret_transport = transport;
	return 0;
}

void virtio_mmio_free(struct virtio_mmio *transport)
{
	if (!transport)
		return;
	virtio_mmio_stop(transport);
	for (size_t i = 0; i < VIRTIO_DEVICE_QUEUES_MAX; i++) {
		if (transport->kicks[i].source.fd >= 0)
			close(transport->kicks[i].source.fd);
	}
	if (transport->wake.fd >= 0)
		close(transport->wake.fd);
	pthread_cond_destroy(&transport->command_done);
	pthread_mutex_destroy(&transport->lock);
	free(transport);
}

int virtio_mmio_kick_fd(const struct virtio_mmio *transport, unsigned queue)
{
	return transport->kicks[queue].source.fd;
}

static void leave_loop(struct virtio_mmio *transport, unsigned kicks, bool wake)
{
	for (unsigned i = 0; i < kicks; i++)
		event_loop_remove(transport->loop, &transport->kicks[i].source);
	if (wake)
		event_loop_remove(transport->loop, &transport->wake);
	transport->loop = NULL;
}

int virtio_mmio_start(struct virtio_mmio *transport, struct event_loop *loop)
{
	int r;

	transport->loop = loop;
	for (unsigned i = 0; i < transport->setup.operations->queue_count; i++) {
		r = event_loop_add(loop, &transport->kicks[i].source, EPOLLIN | EPOLLET);
		if (r < 0) {
			leave_loop(transport, i, false);
			return r;
		}
	}
	r = event_loop_add(loop, &transport->wake, EPOLLIN | EPOLLET);
	if (r < 0) {
		leave_loop(transport, transport->setup.operations->queue_count, false);
		return r;
	}
	pthread_mutex_lock(&transport->lock);
	transport->device_thread = pthread_self();
	transport->live = true;
	pthread_mutex_unlock(&transport->lock);
	return 0;
}

void virtio_mmio_stop(struct virtio_mmio *transport)
{
	bool was_live;

	pthread_mutex_lock(&transport->lock);
	was_live = transport->live;
	transport->live = false;
	transport->command = COMMAND_NONE;
	pthread_cond_broadcast(&transport->command_done);
	pthread_mutex_unlock(&transport->lock);
	if (!was_live)
		return;
	stop_queues(transport);
	leave_loop(transport, transport->setup.operations->queue_count, true);
	__atomic_store_n(&transport->state.interrupt_status, 0, __ATOMIC_RELEASE);
}

/* ---- storing (device thread) -------------------------------------------------------------------
 */

int virtio_mmio_save(struct virtio_mmio *transport, struct virtio_mmio_image *ret_image)
{
	const struct virtio_device_operations *operations = transport->setup.operations;
	struct virtio_mmio_image image = { 0 };
	int r = 0;

	if (!operations->position)
		return -ENOTSUP;
	pthread_mutex_lock(&transport->lock);
	image.registers = transport->state;
	if (transport->command != COMMAND_NONE)
		r = -EBUSY;
	pthread_mutex_unlock(&transport->lock);
	if (transport->broken)
		r = -EPROTO;
	for (unsigned i = 0; r == 0 && i < operations->queue_count; i++) {
		if (transport->running[i])
			r = operations->position(transport->setup.device, i, &image.positions[i]);
	}
	if (r < 0)
		return r;
	virtio_mmio_describe(operations, transport->setup.device, &image);
	*ret_image = image;
	return 0;
}

int virtio_mmio_restore(struct virtio_mmio *transport, const struct virtio_mmio_image *image)
{
	const struct virtio_device_operations *operations = transport->setup.operations;
	struct virtio_mmio_image here = { 0 };

	virtio_mmio_describe(operations, transport->setup.device, &here);
	if (!operations->position || !virtio_mmio_same_device(&here, image) ||
	    !virtio_mmio_registers_possible(operations, here.features, &image->registers))
		return -EINVAL;
	pthread_mutex_lock(&transport->lock);
	transport->state = image->registers;
	pthread_mutex_unlock(&transport->lock);
	if (image->registers.status & STATUS_DRIVER_OK)
		start_queues(transport, image->positions);
	if (transport->broken)
		return -EINVAL;
	/* One too many does no harm. */
	if (image->registers.interrupt_status)
		transport->setup.interrupt(transport->setup.context);
	return 0;
}

static bool any_queue_runs(const struct virtio_mmio *transport)
{
	for (unsigned i = 0; i < transport->setup.operations->queue_count; i++) {
		if (transport->running[i])
			return true;
	}
	return false;
}

int virtio_mmio_run(struct virtio_mmio *transport)
{
	int r = 0;

	if (!transport->broken && any_queue_runs(transport)) {
		r = transport->setup.operations->run(transport->setup.device);
		if (r < 0)
			device_needs_reset(transport, "queue broken by the driver");
	}
	if (transport->broken) {
		stop_queues(transport);
		r = 0;
	}
	report_violation(transport);
	return r;
}

static const struct jail_syscall calls[] = {
	JAIL_CALL(SYS_write),
	JAIL_CALL(SYS_futex),
	JAIL_CALL(SYS_epoll_ctl),
	JAIL_CALL(SYS_close),
};
const struct jail_syscall_set virtio_mmio_calls = JAIL_SET(calls);
