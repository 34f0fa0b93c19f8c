/* Channels: a guest that lies in shared memory. */
#include "tests/e2e/lib/attack.h"

#include "wire/audit.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAMES 5000u
#define BIG 300000u
#define NEVER_READ_MAX 200000u

static struct channel_control *control_of(struct attack *attack, uint32_t number)
{
	return (struct channel_control *)(void *)(attack->server.window +
						  (number - 1) * CHANNEL_STRIDE);
}

static bool still_serves(struct attack *attack)
{
	struct fs_client client;
	uint64_t node;
	bool works = fs_join(&client, attack->server.socket, 1, FS_STREAM_REQUESTS) == 0 &&
		     fs_lookup(&client, FS_NODE_ROOT, "readme", &node) == 0;

	fs_leave(&client);
	return works && fs_server_alive(&attack->server) && neighbour_works(attack);
}

/* The server ends a stream on its own within some seconds. */
static bool ends(struct fs_client *client)
{
	struct pollfd polled = { .fd = client->fd, .events = POLLRDHUP };

	return poll(&polled, 1, 10000) == 1;
}

static void play_by_the_rules(struct attack *attack)
{
	struct fs_client client;
	uint8_t *data = malloc(BIG);
	uint64_t node = 0;
	uint64_t handle = 0;
	unsigned good = 0;

	memset(data, 'x', BIG);
	ok(fs_join_channel(&client, &attack->server, 1, 1) == 0, "a channel is granted");
	/* Many times round the rings, at every place of a frame in them. */
	for (unsigned i = 0; i < FRAMES; i++)
		good += fs_lookup(&client, FS_NODE_ROOT, i % 2 ? "readme" : "src", &node) == 0;
	ok(good == FRAMES, "%u of %u look-ups over a channel", good, FRAMES);
	ok(fs_create(&client, FS_NODE_ROOT, "big", 0644, FS_O_READ | FS_O_WRITE, &node, &handle) ==
			   0 &&
		   fs_write(&client, node, handle, 0, data, BIG) == 0 &&
		   fs_read(&client, node, handle, 0, BIG) == 0 && client.replies[0].length == BIG &&
		   memcmp(client.replies[0].body, data, BIG) == 0,
	   "large frames over a channel");
	refused(fs_read(&client, node, handle, 0, CHANNEL_DATA_MAX + 1), EMSGSIZE, EMSGSIZE,
		"a read whose reply no ring holds");
	fs_leave(&client);
	free(data);
}

static void take_what_is_not_there(struct attack *attack)
{
	struct fs_client first;
	struct fs_client second;
	struct fs_client third;

	refused(fs_join_channel(&first, &attack->server, 1, FS_WINDOW_CHANNELS + 1), EINVAL, EINVAL,
		"a channel beyond the window");
	fs_leave(&first);
	refused(fs_join_channel(&first, &attack->server, 1, UINT32_MAX), EINVAL, EINVAL,
		"a channel number that overflows");
	fs_leave(&first);
	ok(fs_join_channel(&first, &attack->server, 1, 2) == 0, "another channel is granted");
	refused(fs_join_channel(&second, &attack->server, 1, 2), EBUSY, EBUSY,
		"a channel that is taken");
	ok(fs_lookup(&first, FS_NODE_ROOT, "readme", &(uint64_t){ 0 }) == 0,
	   "its owner did not notice");
	fs_leave(&second);
	fs_leave(&first);
	/* The server learns of the end in its own time. */
	for (unsigned i = 0; i < 100; i++) {
		int error = fs_join_channel(&third, &attack->server, 1, 2);

		if (error == 0)
			break;
		fs_leave(&third);
		usleep(20000);
	}
	ok(third.over_channel, "a channel comes back with its stream's end");
	fs_leave(&third);
}

/* One lie about an index; the stream must end as a violation, and nothing else. */
static void lie(struct attack *attack, const char *what, size_t index_offset, uint32_t value)
{
	struct fs_client client;
	unsigned before = fs_server_events(&attack->server, AUDIT_VIOLATION, "indices");
	uint8_t *memory = (uint8_t *)control_of(attack, 3) + index_offset;

	if (fs_join_channel(&client, &attack->server, 1, 3) != 0) {
		ok(false, "%s: no channel", what);
		fs_leave(&client);
		return;
	}
	(void)fs_lookup(&client, FS_NODE_ROOT, "readme", &(uint64_t){ 0 });
	atomic_store(&((struct channel_index *)(void *)memory)->value, value);
	(void)fs_ring(&client);
	ok(ends(&client), "%s ends the stream", what);
	fs_leave(&client);
	ok(still_serves(attack), "... and only that");
	if (index_offset == offsetof(struct channel_control, request_produced))
		ok(fs_server_tells(&attack->server, AUDIT_VIOLATION, "indices", before),
		   "... and is reported");
	usleep(50000);
}

static void lie_about_indices(struct attack *attack)
{
	size_t produced = offsetof(struct channel_control, request_produced);

	lie(attack, "more bytes than a ring holds", produced, CHANNEL_RING_SIZE + 1000);
	lie(attack, "a negative number of bytes", produced, 3);
	lie(attack, "the largest number of bytes", produced, UINT32_MAX);
}

/* The reply cannot leave: its reader claims to have read what was never written. */
static void lie_about_room(struct attack *attack)
{
	struct fs_client client;

	ok(fs_join_channel(&client, &attack->server, 1, 4) == 0, "a channel for a liar");
	atomic_store(&control_of(attack, 4)->reply_consumed.value, 1000000);
	(void)fs_lookup(&client, FS_NODE_ROOT, "readme", &(uint64_t){ 0 });
	ok(ends(&client), "more read than was written ends the stream");
	fs_leave(&client);
	ok(still_serves(attack), "... and only that");
}

/* Requests without end whose replies nobody takes: memory of the server stays bounded. */
static void never_read(struct attack *attack)
{
	struct fs_client client;
	struct fs_parent parent = { .parent = FS_NODE_ROOT, .name_length = 6 };
	unsigned sent = 0;
	unsigned refusals = 0;

	ok(fs_join_channel(&client, &attack->server, 1, 1) == 0,
	   "a channel for one who never reads");
	while (sent < NEVER_READ_MAX && refusals < 100) {
		if (channel_room(&client.channel) < 4096) {
			refusals++;
			usleep(2000);
			continue;
		}
		refusals = 0;
		fs_add(&client, FS_LOOKUP, &parent, sizeof(parent), "readme", 6, NULL, 0);
		(void)fs_send(&client);
		sent++;
	}
	ok(sent < NEVER_READ_MAX, "requests are no longer taken after %u", sent);
	fs_leave(&client);
	ok(still_serves(attack), "the others are served");
}

static void ring_all_the_time(struct attack *attack)
{
	struct fs_client client;

	ok(fs_join_channel(&client, &attack->server, 1, 2) == 0, "a channel for one who rings");
	for (unsigned i = 0; i < 20000; i++)
		(void)fs_ring(&client);
	ok(fs_lookup(&client, FS_NODE_ROOT, "readme", &(uint64_t){ 0 }) == 0,
	   "doorbells for nothing do no harm");
	fs_leave(&client);
}

void attack_channels(struct attack *attack)
{
	start(attack, "", "");
	play_by_the_rules(attack);
	take_what_is_not_there(attack);
	lie_about_indices(attack);
	lie_about_room(attack);
	never_read(attack);
	ring_all_the_time(attack);
	stop(attack);
}
