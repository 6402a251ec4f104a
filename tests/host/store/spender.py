"""A process that spends: `spender.py URL NAME LIMIT AMOUNT COST spend|hold|grab`. It ends when the budget is spent.

It prints a line for each request that it has settled. One that holds makes a reservation, prints a line and stays. One
that grabs waits for a line, reserves the whole of LIMIT budgets in turn, prints how many it got, and stays.
"""

import random
import sys
import time

from gatewright.events import SpendRefused, SpendReserved
from gatewright_host.store import Store
from gatewright_host.store.vocabulary import StoreBusy, Written
from tests.host.store.stored import charge, ended, reserving

PATIENCE_S = 30.0


def main(url: str, name: str, limit: float, amount: float, *, cost: float, mode: str) -> None:
    budget = charge(limit)
    chance = random.Random(name)
    with Store.open(url) as store:
        if mode == "grab":
            store.heartbeat()
            print("ready", flush=True)
            sys.stdin.readline()
            answers = [
                store.reserve(reserving(f"{name}-{number}", 1.0, charge(1.0, f"budget-{number}")), PATIENCE_S)
                for number in range(round(limit))
            ]
            print(sum(isinstance(answer, SpendReserved) for answer in answers), flush=True)
            sys.stdin.readline()
            return
        if mode == "hold":
            store.reserve(reserving(f"{name}-held", amount, budget))
            print("holds", flush=True)
            while True:
                store.heartbeat()
                time.sleep(1)
        number = 0
        while True:
            number += 1
            request = f"{name}-{number}"
            try:
                refused = isinstance(store.reserve(reserving(request, amount, budget)), SpendRefused)
            except StoreBusy:
                continue
            if refused:
                (use,) = store.budget_use([budget.account])
                if use.spent_usd + amount > limit + 1e-12:
                    return
                # Others have reserved what is left, and may need less or die.
                time.sleep(0.01)
                continue
            time.sleep(chance.random() * 0.004)
            now_s = time.time()
            store.write([Written(record=ended(request, cost, budget), at_s=now_s, gateway_epoch_s=0.0)])
            print(request, flush=True)


if __name__ == "__main__":
    where, who, most, each, costs, how = sys.argv[1:]
    main(where, who, float(most), float(each), cost=float(costs), mode=how)
