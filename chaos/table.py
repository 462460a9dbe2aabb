"""The table of faults."""

from collections.abc import Callable
from dataclasses import dataclass

from chaos.clients import clients
from chaos.defaults import defaults
from chaos.limits import limits
from chaos.malformed import malformed
from chaos.outcome import Outcome
from chaos.overload import overload
from chaos.restart import restart
from chaos.scene import Scene
from chaos.soak import soak
from chaos.stop import stop
from chaos.swap import swap
from chaos.worker_kill import worker_kill


@dataclass(frozen=True)
class Fault:
    """One entry: what must be survived, in a sentence, and how it is brought about and judged."""

    title: str
    run: Callable[[Scene], Outcome]
    # whether it lasts as many minutes as asked for
    timed: bool = False


FAULTS = {
    "clients": Fault("Of many clients at once, each gets its own answers, as offline.", clients),
    "worker-kill": Fault(
        "A worker that is killed costs no answer and is back within load time + 3 s.", worker_kill
    ),
    "restart": Fault(
        "All workers or Java killed: the same models, versions and answers come back.", restart
    ),
    "swap": Fault("Another version is deployed without an answer lost or mixed.", swap),
    "stop": Fault("A stop answers every request that was accepted, and leaves nothing.", stop),
    "malformed": Fault(
        "Malformed requests and naughty sentences get an error or the offline answer, and no 5xx.",
        malformed,
    ),
    "limits": Fault(
        "Sizes at their limits, slow, silent and leaving clients delay nobody.", limits
    ),
    "overload": Fault("Five times what a server can answer costs it nothing.", overload),
    "soak": Fault(
        "Memory of a worker does not grow with its requests, and a leak is seen.", soak, timed=True
    ),
    "defaults": Fault(
        "Strangers, addresses and damaged archives are refused; it serves where little is allowed.",
        defaults,
    ),
}
