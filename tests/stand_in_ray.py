"""Ray, as far as a run on a cluster calls it, in this process."""

from types import SimpleNamespace


class Lost(Exception):
    pass


class Call:
    def __init__(self, value):
        self.value = value


class StandIn:
    """Of Ray the calls that the driver makes; actors live in this process. `loses` says at which call one is lost."""

    exceptions = SimpleNamespace(RayError=Lost, RayActorError=Lost)

    def __init__(self, cores=2):
        self.cores, self.loses, self.started, self.killed, self.turn = cores, lambda name, args: False, 0, 0, 0

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self.cores}}, {"Alive": False, "Resources": {"CPU": 64}}]

    def remote(self, **options):
        assert options.keys() == {"num_cpus", "num_gpus", "max_restarts"} and not options["max_restarts"]
        return lambda cls: SimpleNamespace(remote=lambda *args: self._actor(cls(*args)))

    def _actor(self, worker):
        self.started += 1
        names = ("hello", "prepare", "shard", "merge", "look", "stop")
        return SimpleNamespace(worker=worker, **{name: self._method(worker, name) for name in names})

    def _method(self, worker, name):
        def call(*args):
            if name == "stop":
                return worker.stop(*args)
            return Call(lambda: self._called(worker, name, args))

        return SimpleNamespace(remote=call)

    def _called(self, worker, name, args):
        if self.loses(name, args):
            worker.stop(True)
            if worker._job is not None:
                worker._job.wait(30)
            raise Lost("the actor died")
        return getattr(worker, name)(*args)

    def wait(self, calls, num_returns, timeout):
        self.turn += 1  # whoever is asked first is another one each time
        first = calls[self.turn % len(calls)]
        return [first], [one for one in calls if one is not first]

    def get(self, call):
        return call.value()

    def kill(self, actor):
        self.killed += 1
