"""What TensorBoard's HParams tab shows of a log directory, by TensorBoard's own code."""

from pathlib import Path
from typing import Any

from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

STATUSES = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
NUMBER, TEXT = api_pb2.DATA_TYPE_FLOAT64, api_pb2.DATA_TYPE_STRING


class HParamsTab:
    """The tab of ``tensorboard --logdir folder``."""

    def __init__(self, folder: Path) -> None:
        multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
        multiplexer.Reload()
        provider = MultiplexerDataProvider(multiplexer, str(folder))
        self._backend = Context(TBContext(data_provider=provider))

    @property
    def experiment(self) -> api_pb2.Experiment:
        """The columns."""
        request = api_pb2.GetExperimentRequest(include_metrics=True)
        return get_experiment.Handler(context.RequestContext(), self._backend, "", request).run()

    @property
    def types(self) -> dict[str, int]:
        """Type of each column of hyperparameters."""
        return {info.name: info.type for info in self.experiment.hparam_infos}

    @property
    def metrics(self) -> set[str]:
        """Names of the columns of metrics."""
        return {info.name.tag for info in self.experiment.metric_infos}

    def sessions(self, *columns: dict[str, Any], statuses: list[int] = STATUSES) -> dict[str, api_pb2.SessionGroup]:
        """The rows by run, in the order that the columns ask for."""
        asked = [api_pb2.ColParams(**column) for column in columns]
        request = api_pb2.ListSessionGroupsRequest(
            col_params=asked, allowed_statuses=statuses, slice_size=1000, include_metrics=True
        )
        found = list_session_groups.Handler(context.RequestContext(), self._backend, "", request).run()
        return {group.name: group for group in found.session_groups}

    def check_every_column(self) -> None:
        """Sorts by each column in turn, and filters by all values that it has."""
        everything = set(self.sessions())
        for info in self.experiment.hparam_infos:
            if info.type == NUMBER:
                chosen = {"filter_interval": info.domain_interval}
            else:
                chosen = {"filter_discrete": info.domain_discrete}
            for order in (api_pb2.ORDER_ASC, api_pb2.ORDER_DESC):
                assert set(self.sessions({"hparam": info.name, "order": order, **chosen})) == everything
            if info.type == TEXT:
                assert set(self.sessions({"hparam": info.name, "filter_regexp": ""})) == everything
        for info in self.experiment.metric_infos:
            assert set(self.sessions({"metric": info.name, "order": api_pb2.ORDER_DESC})) == everything
