"""Processes that fork, beside threads that send: no child hangs, and each event is posted once."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing

import pytest
import redis

from tests.integration.test_grip_publisher import ControlPort
from tests.redis_log import connection_to
from tests.services.deadline import HEALTHY
from tests.services.ports import free_port
from tests.services.python import django_environment, run, run_python

FORKS = """if True:
    import faulthandler, gc, os, sys, threading, time, warnings
    from django_eventstream import backends, housekeeping, processes, send_event
    from django_eventstream.hub import current
    from django_eventstream.publishers.outlet import Outlet
    from django_eventstream.storage.memory import MemoryStorage

    warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: threads beside a fork
    count, at_once = int(sys.argv[1]), 4
    send_event("parent", "message", 0)
    storage, publishers = backends.get_storage(), backends.get_publishers()
    outlets = [outlet for each in publishers for outlet in getattr(each, "_outlets", ())]
    senders = [each._sender for each in publishers if hasattr(each, "_sender")]

    def locks():
        # Each is looked up again: nobody may hold on to one of an object that began anew.
        yield current._lock
        yield housekeeping.housekeeper._lock
        yield storage._lock
        for outlet in outlets:
            yield outlet._condition
        for sender in senders:
            yield sender._lock
            yield sender._queue._changed

    def hold():
        while True:
            for lock in locks():
                with lock:
                    time.sleep(0.0005)

    def send():
        for number in range(100):
            send_event("parent", "message", number)
            time.sleep(0.02)

    for busy in (hold, send):
        threading.Thread(target=busy, daemon=True).start()

    def child(number):
        faulthandler.dump_traceback_later(15, exit=True)
        send_event(f"child-{number}", "message", number)
        processes.flush()

    gc.freeze()
    living = set()
    def wait_for_one():
        pid, status = os.wait()
        living.discard(pid)
        assert os.waitstatus_to_exitcode(status) == 0, "a child hung or failed"

    for number in range(count):
        if len(living) == at_once:
            wait_for_one()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(number)
                code = 0
            finally:
                os._exit(code)
        living.add(pid)
    while living:
        wait_for_one()
"""


@pytest.fixture
def control():
    with closing(ControlPort()) as port:
        yield port


@pytest.fixture
def settings(control, redis_server):
    """Those of the processes that a test starts."""
    return {
        "GRIP_URL": control.url,
        "EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.memory.MemoryStorage",
        "EVENTSTREAM_REDIS": connection_to(redis_server),
    }


@pytest.fixture
def news(redis_server):
    """`news()` returns what processes told each other in Redis: the channel of each event."""
    client = redis.Redis(port=redis_server.port, decode_responses=True)
    with closing(client), closing(client.pubsub()) as subscription:
        subscription.subscribe("eventstream:news:0")
        subscription.get_message(timeout=HEALTHY)

        def heard() -> list[str]:
            texts = []
            while message := subscription.get_message(timeout=0.5):
                texts.append(message["data"])
            return [event[0] for text in texts for event in json.loads(text)["events"]]

        yield heard


def of_children(channels: list[str]) -> Counter[str]:
    return Counter(channel for channel in channels if channel.startswith("child-"))


def test_five_hundred_forks_beside_busy_threads_lose_nothing_and_hang_nowhere(
    control, news, settings
):
    """A child hung at its first send if another thread held a lock of the hubs, of the
    housekeeper or of the log in memory when it was forked."""
    run_python(FORKS, "500", settings=settings, timeout=100)
    once = Counter(f"child-{number}" for number in range(500))
    # A child that is slow probes what it sent.
    posted = [
        item["channel"].removeprefix("events-") for item in control.items if "no-seq" not in item
    ]
    assert of_children(posted) == once
    assert of_children(news()) == once


IMPORTS = """if True:
    import sys, threading
    found = []

    def hear(event, arguments):
        if event == "import" and threading.current_thread() is not threading.main_thread():
            found.append(arguments[0])

    sys.addaudithook(hear)
    from django_eventstream import processes, send_event
    send_event("a", "message", 1)
    processes.flush()
    print(found)
"""


def test_threads_that_send_import_nothing(settings):
    """A fork in the middle left a child whose thread waited for the import for ever: with Python
    3.13 some of the first children told other processes of no event."""
    layer = {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [("127.0.0.1", settings["EVENTSTREAM_REDIS"]["port"])]},
    }
    with_layer = {**settings, "EVENTSTREAM_REDIS": None, "CHANNEL_LAYERS": {"default": layer}}
    for each in (settings, with_layer):
        assert run_python(IMPORTS, settings=each) == "[]\n"


GREENLETS = """if True:
    from gevent import monkey
    monkey.patch_all()
    import django, os, sys, time
    django.setup()
    from django_eventstream.events import Event
    from django_eventstream.publishers.grip import GripPublisher
    from tests.integration.test_grip_publisher import ControlPort

    publisher = GripPublisher()
    [outlet] = publisher._outlets
    publisher.publish([Event("a", "message", "of the parent", 1)])
    while not outlet.statistics.failures:
        time.sleep(0.01)
    child = os.fork()
    if child:
        os._exit(os.waitpid(child, 0)[1])
    control = ControlPort(int(sys.argv[1]))
    for number in range(2, 32):
        publisher.publish([Event("a", "message", "of the child", number)], wait=True)
        time.sleep(0.02)
    while 1 not in control.ids():
        time.sleep(0.01)  # The parent tries again.
    print(control.ids(), flush=True)
    os._exit(0)
"""


def test_the_greenlets_of_a_parent_publish_nothing_in_its_child():
    """Unlike threads they are copied by a fork: two of them posted each event of the child."""
    port = free_port()
    env = django_environment(settings={"GRIP_URL": f"http://127.0.0.1:{port}"})
    posted = json.loads(run(["-c", GREENLETS, str(port)], 60, env))
    assert Counter(posted) == Counter(range(1, 32))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_child_of_multiprocessing_loses_nothing_at_its_end(control, news, settings, method):
    """It leaves by `os._exit()`, without the handlers of `atexit`: what was queued was lost."""
    code = f"""if True:
        import multiprocessing
        from tests.children import send
        child = multiprocessing.get_context({method!r}).Process(target=send, args=("child-1", 300))
        child.start()
        child.join()
        assert child.exitcode == 0
    """
    run_python(code, settings=settings)
    assert control.ids("child-1") == list(range(1, 301))
    assert news() == ["child-1"] * 300


def test_the_workers_of_a_process_pool_lose_nothing_at_their_end(control, news, settings):
    """Those of `ProcessPoolExecutor` leave like every child of multiprocessing."""
    code = """if True:
        from concurrent.futures import ProcessPoolExecutor
        from tests.children import send
        from django_eventstream import send_event
        send_event("parent", "message", 0)
        with ProcessPoolExecutor(2) as pool:
            assert len([pool.submit(send, f"child-{n}", 150).result() for n in range(4)]) == 4
    """
    run_python(code, settings=settings)
    for number in range(4):
        assert control.ids(f"child-{number}") == list(range(1, 151))
    assert of_children(news()) == Counter({f"child-{number}": 150 for number in range(4)})


def test_a_grandchild_that_is_forked_posts_what_it_sends_and_nothing_of_its_parents(
    control, settings
):
    """The finalizer of a child is inherited by what it forks, where multiprocessing ignores it."""
    code = """if True:
        import multiprocessing
        from tests.children import send
        from django_eventstream import send_event

        def child():
            send("child-1", 150)
            grandchild = multiprocessing.get_context("fork").Process(target=send, args=("own", 150))
            grandchild.start()
            grandchild.join()
            assert grandchild.exitcode == 0

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
    """
    run_python(code, settings=settings)
    assert control.ids("child-1") == control.ids("own") == list(range(1, 151))


def test_a_fork_in_the_middle_of_asking_redis_leaves_the_child_a_client_of_its_own(redis_server):
    """A lock of the log, or one of the client that pools do not renew, hung the child's send."""
    code = """if True:
        import faulthandler, os, threading, warnings
        from django_eventstream import backends, send_event

        warnings.simplefilter("ignore", DeprecationWarning)
        storage = backends.get_storage()

        def fork_while_held(lock):
            held, release = threading.Event(), threading.Event()
            def hold():
                with lock:
                    held.set()
                    release.wait()
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            pid = os.fork()
            if pid == 0:
                faulthandler.dump_traceback_later(10, exit=True)
                send_event("child", "message", 1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, "the child hung or failed"
            release.set()
            thread.join()

        fork_while_held(storage._lock)
        send_event("parent", "message", 1)
        client = storage._ready.client
        for owner, name in ((client, "_event_dispatcher"), (client, "connection_pool")):
            if lock := getattr(getattr(owner, name, None), "_lock", None):
                fork_while_held(lock)
        print(send_event("child", "message", 1).id)
    """
    settings = {
        "EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.RedisStorage",
        "EVENTSTREAM_REDIS": connection_to(redis_server),
    }
    assert int(run_python(code, settings=settings)) >= 2


def test_a_child_answers_requests_though_its_parent_did():
    """The threads that answered in the parent are not there, and nobody started others."""
    code = """if True:
        import asyncio, os, warnings
        from django_eventstream.web.handler import OneThreadHandler

        warnings.simplefilter("ignore", DeprecationWarning)
        handler = OneThreadHandler(1)
        handler.load_middleware()
        scope = {"type": "http", "method": "GET", "path": "/nowhere/", "headers": []}

        async def ask():
            answer = []
            async def receive():
                return {"type": "http.request"} if not answer else await asyncio.sleep(60)
            async def send(message):
                answer.append(message)
            await asyncio.wait_for(handler(scope, receive, send), 45)
            assert answer[0]["status"] == 404

        asyncio.run(ask())
        pid = os.fork()
        if pid == 0:
            asyncio.run(ask())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """
    run_python(code)


def test_a_child_sends_in_async_code_though_its_parent_did():
    """The thread in which asgiref calls sync functions stayed in the parent: the child hung."""
    code = """if True:
        import asyncio, os, signal
        from django_eventstream import asend_event
        asyncio.run(asend_event("a", "message", 1))
        if not os.fork():
            signal.alarm(20)
            assert asyncio.run(asend_event("a", "message", 2)).id
            os._exit(0)
        _, status = os.wait()
        assert status == 0, status
    """
    log = {"EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.MemoryStorage"}
    run_python(code, settings=log)
