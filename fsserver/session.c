#include "fsserver/session.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "fsserver/operations.h"
#include "fsserver/ring.h"
#include "fsserver/stream.h"
#include "fsserver/watch.h"
#include "fsserver/window.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What a completion is about: the low bits of its user data, a pointer beside them. */
enum event {
	EVENT_ACCEPT = 1,
	EVENT_END = 2,
	EVENT_RECEIVE = 3,
	EVENT_SEND = 4,
	EVENT_JOB = 5,
	EVENT_WATCH = 6,
	EVENT_DOORBELL = 7,
	EVENT_MASK = 7,
};

/* After the latest news of a channel the next is looked for so long without sleeping, and between
 * two looks at the ring so long. */
#define LOOK_NS 50000
#define RING_LOOK_NS 20000
#define SESSION_DOORBELLS_MAX 256

struct session {
	struct session_options options;
	struct stream *streams;
	unsigned stream_count;
	unsigned jobs;		/* in the ring */
	unsigned channel_count; /* streams over one */
	bool news;		/* came over one */
	uint8_t doorbells[SESSION_DOORBELLS_MAX];
	bool ending;
	time_t upkeep_second;
};

static void serve_stream(struct session *session, struct stream *stream);

int session_new(const struct session_options *options, struct session **ret_session)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return -ENOMEM;
	session->options = *options;
	*ret_session = session;
	return 0;
}

void session_free(struct session *session)
{
	free(session);
}

static void set_event(struct io_uring_sqe *entry, enum event event, const void *object)
{
	io_uring_sqe_set_data64(entry, (uint64_t)(uintptr_t)object | event);
}

/* ---- asking the ring ------------------------------------------------------------------------ */

static void ask_accept(struct session *session)
{
	struct io_uring_sqe *entry = ring_entry(session->options.ring);

	io_uring_prep_accept(entry, session->options.listen_fd, NULL, NULL, SOCK_CLOEXEC);
	set_event(entry, EVENT_ACCEPT, NULL);
}

static void ask_end(struct session *session, int fd, unsigned events)
{
	struct io_uring_sqe *entry;

	if (fd < 0)
		return;
	entry = ring_entry(session->options.ring);
	io_uring_prep_poll_add(entry, fd, events);
	set_event(entry, EVENT_END, NULL);
}

static void ask_doorbell(struct session *session)
{
	struct io_uring_sqe *entry;

	if (session->options.doorbell_fd < 0)
		return;
	entry = ring_entry(session->options.ring);
	io_uring_prep_read(entry, session->options.doorbell_fd, session->doorbells,
			   sizeof(session->doorbells), 0);
	set_event(entry, EVENT_DOORBELL, NULL);
}

static void ask_watch(struct session *session, struct stream *stream)
{
	struct io_uring_sqe *entry = ring_entry(session->options.ring);

	io_uring_prep_poll_add(entry, watch_fd(stream->export->watch), POLLIN);
	set_event(entry, EVENT_WATCH, stream);
	stream->watching = true;
}

static void ask_receive(struct session *session, struct stream *stream)
{
	struct io_uring_sqe *entry;
	struct buffer *rx = stream->rx;

	if (stream->receiving || (stream->channel_number == 0 && !stream_wants_bytes(stream)))
		return;
	if (stream->dead)
		return;
	entry = ring_entry(session->options.ring);
	if (stream->channel_number > 0)
		io_uring_prep_recv(entry, stream->fd, stream->doorbells, sizeof(stream->doorbells),
				   0);
	else
		io_uring_prep_recv(entry, stream->fd, rx->data + rx->length,
				   rx->capacity - rx->length, 0);
	set_event(entry, EVENT_RECEIVE, stream);
	stream->receiving = true;
}

/* What a channel takes at once needs no ring. */
static void send_over_channel(struct stream *stream)
{
	int moved = stream_push(stream);

	if (moved < 0)
		stream->dead = true;
	else if (channel_peer_sleeps(&stream->channel))
		/* A full socket holds doorbells enough. */
		(void)send(stream->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void ask_send(struct session *session, struct stream *stream)
{
	struct io_uring_sqe *entry;

	if (stream->over_channel) {
		if (!stream->dead)
			send_over_channel(stream);
		return;
	}

	if (stream->sending || stream->dead || !stream_gather(stream))
		return;
	entry = ring_entry(session->options.ring);
	io_uring_prep_sendmsg(entry, stream->fd, &stream->message, MSG_NOSIGNAL);
	set_event(entry, EVENT_SEND, stream);
	stream->sending = true;
}

static void ask_job(struct session *session, struct job *job)
{
	struct io_uring_sqe *entry = ring_entry(session->options.ring);

	switch (job->pending.kind) {
	case PENDING_READ:
		io_uring_prep_read(entry, job->pending.fd, job->pending.data,
				   (unsigned)job->pending.length, job->pending.offset);
		break;
	case PENDING_WRITE:
		io_uring_prep_write(entry, job->pending.fd, job->pending.data,
				    (unsigned)job->pending.length, job->pending.offset);
		entry->rw_flags = job->pending.flags;
		break;
	case PENDING_FSYNC:
		io_uring_prep_fsync(entry, job->pending.fd, (unsigned)job->pending.flags);
		break;
	}
	set_event(entry, EVENT_JOB, job);
	session->jobs++;
}

/* ---- streams -------------------------------------------------------------------------------- */

static void end_stream(struct session *session, struct stream *stream,
		       enum fs_goodbye_reason reason, const char *text)
{
	if (stream->ending)
		return;
	if (reason == FS_GOODBYE_PROTOCOL)
		report_violation(session->options.server->report, text);
	stream_say_goodbye(stream, reason, text);
	stream->ending = true;
	ask_send(session, stream);
}

static void leave_export(struct session *session, struct stream *stream)
{
	struct export *export = stream->export;

	if (!export)
		return;
	if (stream->notifies) {
		watch_free(export->watch);
		export->watch = NULL;
	} else if (--export->request_streams == 0) {
		operations_guest_gone(export);
	}
	(void)session;
}

/* Closes the stream once nothing of it is under way any more. */
static void settle_stream(struct session *session, struct stream *stream)
{
	struct stream **link = &session->streams;

	if (!stream->dead && !(stream->ending && !stream->tx && !stream->sending))
		return;
	/* An outstanding receive or poll ends by this. */
	if (!stream->shut)
		shutdown(stream->fd, SHUT_RDWR);
	stream->shut = true;
	stream->dead = true;
	if (stream->watching) {
		struct io_uring_sqe *entry = ring_entry(session->options.ring);

		io_uring_prep_cancel64(entry, (uint64_t)(uintptr_t)stream | EVENT_WATCH, 0);
		io_uring_sqe_set_data64(entry, 0);
		stream->watching = false;
		stream->watch_cancelled = true;
	}
	if (stream->receiving || stream->sending || stream->jobs || stream->watch_cancelled)
		return;
	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	session->stream_count--;
	if (stream->over_channel)
		session->channel_count--;
	if (stream->channel_number > 0)
		window_give_back(session->options.window, stream->channel_number);
	leave_export(session, stream);
	stream_free(stream);
}

static struct export *find_export(const struct session *session, uint32_t id)
{
	for (size_t i = 0; i < session->options.export_count; i++) {
		if (session->options.exports[i]->config->id == id)
			return session->options.exports[i];
	}
	return NULL;
}

static int take_channel(struct session *session, struct stream *stream,
			const struct fs_hello *hello)
{
	struct window *window = session->options.window;
	int error;

	if (!window || hello->stream_kind != FS_STREAM_REQUESTS)
		return -EINVAL;
	error = window_take(window, hello->channel, &stream->channel);
	if (!error)
		stream->channel_number = hello->channel;
	return error;
}

static int join_export(struct session *session, struct stream *stream, const struct fs_hello *hello)
{
	struct export *export = find_export(session, hello->export_id);
	int error;

	if (!export)
		return -ENOENT;
	if (hello->channel > 0) {
		error = take_channel(session, stream, hello);
		if (error)
			return error;
	}
	if (hello->stream_kind == FS_STREAM_REQUESTS) {
		export->request_streams++;
		stream->export = export;
		return 0;
	}
	if (hello->stream_kind != FS_STREAM_NOTIFICATIONS)
		return -EINVAL;
	if (export->watch)
		return -EBUSY;
	error = watch_new(export, &export->watch);
	if (error)
		return error;
	stream->export = export;
	stream->notifies = true;
	ask_watch(session, stream);
	return 0;
}

static int answer_hello(struct stream *stream, const struct fs_hello *hello, uint64_t tag,
			int error)
{
	struct export *export = stream->export;
	struct fs_hello_reply reply = {
		.version = FS_VERSION,
		.ops_max = FS_OPS_MAX,
		.inflight_max = FS_INFLIGHT_MAX,
	};
	struct statx stat;
	struct fs_attr root;

	if (!error)
		error = host_stat(export->root_fd, &stat);
	if (error)
		return stream_answer(stream, tag, FS_HELLO, error, NULL, 0);
	stream->data_max = MIN_OF(MAX_OF(hello->data_max, 4096u),
				  stream->channel_number > 0 ? CHANNEL_DATA_MAX : FS_DATA_MAX);
	reply.data_max = stream->data_max;
	if (export->config->read_only)
		reply.flags |= FS_EXPORT_READ_ONLY;
	if (export->config->immutable)
		reply.flags |= FS_EXPORT_IMMUTABLE;
	operations_attributes(export, &stat, &root);
	reply.root = root;
	return stream_answer(stream, tag, FS_HELLO, 0, &reply, sizeof(reply));
}

static void greet(struct session *session, struct stream *stream, const struct fs_frame *frame,
		  const uint8_t *body)
{
	struct byte_reader reader;
	struct fs_request request;
	int error;

	byte_reader_init(&reader, body, frame->length - sizeof(*frame));
	if (frame->op_count != 1 || frame->flags || fs_request_decode(&reader, &request) ||
	    request.opcode != FS_HELLO || !byte_reader_done(&reader) ||
	    request.hello.magic != FS_MAGIC) {
		end_stream(session, stream, FS_GOODBYE_PROTOCOL,
			   "the first frame of a stream is not HELLO");
		return;
	}
	if (request.hello.version_min > FS_VERSION || request.hello.version_max < FS_VERSION) {
		end_stream(session, stream, FS_GOODBYE_VERSION, "version 1 is spoken here");
		return;
	}
	error = join_export(session, stream, &request.hello);
	if (answer_hello(stream, &request.hello, frame->tag, error)) {
		stream->dead = true;
		return;
	}
	if (error)
		stream->ending = true;
}

static void finish_job(struct session *session, struct stream *stream, struct job *job,
		       enum job_state state)
{
	if (state == JOB_WAITS) {
		stream->jobs++;
		ask_job(session, job);
		return;
	}
	if (state == JOB_VIOLATED)
		end_stream(session, stream, FS_GOODBYE_PROTOCOL,
			   "a frame holds what is not an operation");
	else if (!job->no_reply && !stream->ending)
		stream_queue(stream, steal_pointer(&job->reply));
	job_end(job);
	free(job);
}

static void run_frame(struct session *session, struct stream *stream, const struct fs_frame *frame,
		      const uint8_t *body)
{
	struct job *job = malloc(sizeof(*job));
	enum job_state state;

	if (!job || job_begin(job, stream->export, frame, body, stream->data_max)) {
		free(job);
		stream->dead = true;
		return;
	}
	job->stream = stream;
	state = job_run(job);
	/* The bytes of the request must outlive this turn if any are still needed. */
	if (state == JOB_WAITS &&
	    (job->pending.kind == PENDING_WRITE || job->operations_left > 0)) {
		job->request = stream_steal_frame(stream, frame->length);
		if (!job->request) {
			/* Without memory for a new buffer, this one is finished first. */
			state = job_continue(job, job_do_pending(job));
			while (state == JOB_WAITS)
				state = job_continue(job, job_do_pending(job));
		}
	}
	finish_job(session, stream, job, state);
}

/* Executes complete frames; leaves the stream marked ready when there are more. */
static void run_frames(struct session *session, struct stream *stream)
{
	struct fs_frame frame;

	stream->ready = false;
	for (unsigned turn = 0; stream_may_run(stream); turn++) {
		int result = stream_next_frame(stream, &frame);

		if (result == -EAGAIN)
			return;
		if (!result && frame.tag == 0)
			result = -EBADMSG;
		if (result) {
			end_stream(session, stream, FS_GOODBYE_PROTOCOL,
				   "a frame's header is malformed");
			return;
		}
		if (turn == SESSION_TURN) {
			stream->ready = true;
			return;
		}
		if (stream->channel_number > 0 && !stream->over_channel)
			end_stream(session, stream, FS_GOODBYE_PROTOCOL,
				   "a request on the socket of a channel");
		else if (!stream->export)
			greet(session, stream, &frame, stream_frame_body(stream));
		else if (stream->notifies)
			end_stream(session, stream, FS_GOODBYE_PROTOCOL,
				   "a request on a notification stream");
		else
			run_frame(session, stream, &frame, stream_frame_body(stream));
		stream_skip(stream, frame.length);
	}
}

static void serve_stream(struct session *session, struct stream *stream)
{
	if (!stream->dead && !stream->ending) {
		int pulled = stream->over_channel ? stream_pull(stream) : 0;

		if (pulled < 0)
			end_stream(session, stream, FS_GOODBYE_PROTOCOL,
				   "a channel's indices are out of range");
		session->news = session->news || pulled > 0;
		run_frames(session, stream);
		if (stream_make_room(stream))
			stream->dead = true;
	}
	ask_send(session, stream);
	ask_receive(session, stream);
	settle_stream(session, stream);
}

/* ---- events --------------------------------------------------------------------------------- */

static void refuse_stream(int fd)
{
	struct stream *stream;

	if (stream_new(fd, &stream))
		return;
	stream_say_goodbye(stream, FS_GOODBYE_QUOTA, "too many streams");
	send(fd, stream->tx->data, stream->tx->length, MSG_DONTWAIT | MSG_NOSIGNAL);
	stream_free(stream);
}

static void on_accept(struct session *session, int result)
{
	struct stream *stream;

	if (!session->ending)
		ask_accept(session);
	if (result < 0)
		return;
	if (session->stream_count >= FS_STREAMS_MAX) {
		refuse_stream(result);
		return;
	}
	if (stream_new(result, &stream))
		return;
	stream->next = session->streams;
	session->streams = stream;
	session->stream_count++;
	ask_receive(session, stream);
}

static void on_receive(struct session *session, struct stream *stream, int result)
{
	stream->receiving = false;
	if (result <= 0) {
		if (result != -EINTR && result != -EAGAIN)
			stream->dead = true;
	} else if (stream->channel_number == 0) {
		stream->rx->length += (size_t)result;
	}
	serve_stream(session, stream);
}

static void on_send(struct session *session, struct stream *stream, int result)
{
	stream->sending = false;
	if (result < 0 && result != -EINTR && result != -EAGAIN)
		stream->dead = true;
	else if (result > 0)
		stream_sent(stream, (size_t)result);
	/* The reply to HELLO is the last that the socket carries. */
	if (stream->channel_number > 0 && !stream->tx && !stream->over_channel && !stream->ending) {
		stream->over_channel = true;
		session->channel_count++;
	}
	if (stream->notifies && !stream->dead)
		stream_notify(stream);
	serve_stream(session, stream);
}

static void on_job(struct session *session, struct job *job, int result)
{
	struct stream *stream = job->stream;

	session->jobs--;
	stream->jobs--;
	finish_job(session, stream, job, job_continue(job, result));
	serve_stream(session, stream);
}

static void on_watch(struct session *session, struct stream *stream, int result)
{
	if (stream->watch_cancelled || result < 0) {
		stream->watching = false;
		stream->watch_cancelled = false;
		if (result < 0 && result != -ECANCELED)
			stream->dead = true;
		settle_stream(session, stream);
		return;
	}
	watch_read(stream->export->watch);
	ask_watch(session, stream);
	stream_notify(stream);
	serve_stream(session, stream);
}

/* All channels are looked at in each turn, so there is nothing to do but to wait for the next. The
 * end of the engine, which ends this too, ends the streams by itself. */
static void on_doorbell(struct session *session, int result)
{
	if (result > 0 || result == -EINTR || result == -EAGAIN)
		ask_doorbell(session);
}

static void on_event(struct session *session, uint64_t data, int result)
{
	void *object = (void *)(uintptr_t)(data & ~(uint64_t)EVENT_MASK);

	switch ((enum event)(data & EVENT_MASK)) {
	case EVENT_ACCEPT:
		on_accept(session, result);
		break;
	case EVENT_END:
		session->ending = true;
		break;
	case EVENT_RECEIVE:
		on_receive(session, object, result);
		break;
	case EVENT_SEND:
		on_send(session, object, result);
		break;
	case EVENT_JOB:
		on_job(session, object, result);
		break;
	case EVENT_WATCH:
		on_watch(session, object, result);
		break;
	case EVENT_DOORBELL:
		on_doorbell(session, result);
		break;
	}
}

static bool serve_ready(struct session *session)
{
	bool ready = false;
	struct stream *next;

	for (struct stream *stream = session->streams; stream; stream = next) {
		next = stream->next;
		if (!stream->ready)
			continue;
		/* It may go, but no other does. */
		ready = true;
		serve_stream(session, stream);
	}
	return ready;
}

/* ---- channels ------------------------------------------------------------------------------- */

static bool any_news(const struct session *session)
{
	for (const struct stream *stream = session->streams; stream; stream = stream->next) {
		if (stream->over_channel && stream_has_news(stream))
			return true;
	}
	return false;
}

static void serve_channels(struct session *session)
{
	struct stream *next;

	for (struct stream *stream = session->streams; stream; stream = next) {
		next = stream->next;
		if (stream->over_channel && stream_has_news(stream))
			serve_stream(session, stream);
	}
}

static void say_asleep(struct session *session, bool asleep)
{
	for (struct stream *stream = session->streams; stream; stream = stream->next) {
		if (!stream->over_channel)
			continue;
		if (asleep)
			channel_sleep(&stream->channel);
		else
			channel_wake(&stream->channel);
	}
}

/* Looks for news until the ring is due for a look, or there are any. */
static void look_for_news(const struct session *session)
{
	uint64_t until = clock_now_ns() + RING_LOOK_NS;

	do {
		for (unsigned i = 0; i < 16; i++) {
			if (any_news(session))
				return;
			__builtin_ia32_pause();
		}
	} while (clock_now_ns() < until);
}

static bool upkeep_waits(const struct session *session)
{
	for (size_t i = 0; i < session->options.export_count; i++) {
		if (session->options.exports[i]->unstamped)
			return true;
	}
	return report_waits(session->options.server->report);
}

/* What is due about once a second, if at all. */
static void keep_up(struct session *session)
{
	struct timespec now;

	if (!upkeep_waits(session))
		return;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == session->upkeep_second)
		return;
	session->upkeep_second = now.tv_sec;
	for (size_t i = 0; i < session->options.export_count; i++)
		operations_stamp(session->options.exports[i]);
	report_flush(session->options.server->report, false);
}

/* Handles what has completed; waits for the first unless something is ready anyway. */
static int turn(struct session *session, bool wait)
{
	struct io_uring *ring = session->options.ring;
	struct __kernel_timespec limit = { .tv_sec = 1 };
	bool timed = upkeep_waits(session);
	struct io_uring_cqe *completion;
	int result;

	if (wait && timed)
		result = io_uring_submit_and_wait_timeout(ring, &completion, 1, &limit, NULL);
	else
		result = io_uring_submit_and_wait(ring, wait ? 1 : 0);
	if (result < 0 && result != -ETIME && result != -EINTR && result != -EBUSY &&
	    result != -EAGAIN)
		return result;
	while (io_uring_peek_cqe(ring, &completion) == 0) {
		uint64_t data = completion->user_data;
		int value = completion->res;

		io_uring_cqe_seen(ring, completion);
		on_event(session, data, value);
	}
	return 0;
}

static void say_goodbye_to_all(struct session *session)
{
	for (struct stream *stream = session->streams; stream; stream = stream->next) {
		if (stream->dead || stream->ending || stream->sending || stream->tx)
			continue;
		stream_say_goodbye(stream, FS_GOODBYE_SHUTDOWN, "the session is over");
		if (stream->over_channel)
			ask_send(session, stream);
		else if (stream->tx)
			send(stream->fd, stream->tx->data, stream->tx->length,
			     MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	for (struct stream *stream = session->streams; stream; stream = stream->next)
		stream->dead = true;
}

static int finish(struct session *session)
{
	int result = 0;

	say_goodbye_to_all(session);
	for (struct stream *stream = session->streams, *next; stream; stream = next) {
		next = stream->next;
		settle_stream(session, stream);
	}
	while (!result && session->streams)
		result = turn(session, true);
	for (size_t i = 0; i < session->options.export_count; i++)
		operations_guest_gone(session->options.exports[i]);
	report_flush(session->options.server->report, true);
	return result;
}

int session_run(struct session *session)
{
	struct report *report = session->options.server->report;
	uint64_t looks_until = 0;
	bool ready = false;
	int result = 0;
	int ended;

	ask_accept(session);
	ask_end(session, session->options.control_fd, POLLHUP | POLLRDHUP);
	ask_end(session, session->options.signal_fd, POLLIN);
	ask_doorbell(session);
	while (!result && !session->ending && !report_failed(report)) {
		bool looks = session->channel_count > 0 && clock_now_ns() < looks_until;

		if (session->channel_count > 0 && !looks && !ready) {
			say_asleep(session, true);
			looks = any_news(session);
		}
		result = turn(session, !ready && !looks);
		say_asleep(session, false);
		ready = serve_ready(session);
		if (session->channel_count > 0) {
			serve_channels(session);
			if (session->news)
				looks_until = clock_now_ns() + LOOK_NS;
			else if (looks)
				look_for_news(session);
			session->news = false;
		}
		keep_up(session);
	}
	session->ending = true;
	ended = finish(session);
	if (report_failed(report))
		return -report_failed(report);
	return result ? result : ended;
}
