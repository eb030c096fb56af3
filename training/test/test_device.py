"""Which device a run trains on."""
import re

import pytest
import torch

from vgps_training.device import choose


@pytest.mark.parametrize('name', ['gpu', 'tpu', '', 'mps', 'cuda:99'])
def test_a_device_that_is_not_there_is_refused_by_name(name):
    with pytest.raises(ValueError, match=re.escape(repr(name) if name != 'cuda:99' else name)):
        choose(name)


def test_auto_is_a_gpu_where_there_is_one():
    assert choose('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert choose('cpu').type == 'cpu'
