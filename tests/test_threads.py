"""Threads by the work: small work on one, large work on all, the setting restored."""

import pytest
import torch
from torch import nn

from autovae.threads import SHARED_FROM, flops_of, threads_for


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("flops", "threads"), [(0, 1), (SHARED_FROM - 1, 1), (SHARED_FROM, 2), (1e12, 2)])
def test_small_work_keeps_to_one_thread(flops, threads):
    with threads_for(flops) as found:
        assert found == torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def test_the_setting_is_restored_after_an_error():
    with pytest.raises(KeyError), threads_for(0):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_no_more_threads_than_were_set():
    torch.set_num_threads(1)
    with threads_for(1e12) as found:
        assert found == 1


def test_operations_of_products_and_convolutions_are_counted():
    x = torch.zeros(5, 6)
    assert flops_of(lambda: nn.Linear(6, 4)(x)) == 2 * 5 * 6 * 4
    assert flops_of(lambda: nn.Conv2d(2, 3, 3)(torch.zeros(1, 2, 5, 5))) == 2 * 3 * 3 * 2 * 3 * 3 * 3
    assert flops_of(lambda: x.exp()) == 0
