"""Run, watch and cancel episodes: a façade over the ``execute_instruction`` action."""

import contextlib
import os
import signal
import sys
import threading
import time

import rclpy
from action_msgs.msg import GoalStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from vgps_bringup.system.presence import Announcer, full, where_else
from vgps_msgs.action import ExecuteInstruction
from vgps_msgs_py import discovery, run_files, start
from vgps_msgs_py.vocabulary import Outcome

NOTED_WITHIN = 5.0  # [s] a killed node with much memory has ended only when the kernel has taken it back
GONE = 5  # looks in a row, a second apart, in which the policy node is not there


class EpisodeError(RuntimeError):
    """An episode could not be run; the text says what is missing."""


@contextlib.contextmanager
def remembered_interrupt():
    """Yield a function that raises KeyboardInterrupt if Ctrl-C was pressed since, or the terminal was closed.

    Python drops the exception of a signal that arrives while it is in a destructor, and an arm would move on.
    """
    pressed = []

    def remember(*_):
        pressed.append(True)
        raise KeyboardInterrupt

    def check():
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check  # signals go to the main thread
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    start.on_end(remember)
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class EpisodeClient:
    """Runs episodes one after the other; use as a context manager. Not for use inside another node's callbacks."""

    def __init__(self, namespace: str = 'vgps'):
        self.namespace = '/' + namespace.strip('/')
        try:
            discovery.limit(os.environ)
        except ValueError as error:
            raise EpisodeError(str(error)) from error
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node('episode_client', namespace=self.namespace, context=self.context)
        run_files.note_shared_memory()
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.action = ActionClient(self.node, ExecuteInstruction, 'execute_instruction')
        self._services = {}  # by name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Leave the ROS graph."""
        self.executor.shutdown()
        self.action.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def wait_until_ready(self, timeout: float = 60.0, give_up=lambda: '') -> None:
        """Wait for the policy node to offer the action.

        Raises:
            EpisodeError: it did not within ``timeout`` seconds, or ``give_up()`` returned a reason.

        """
        deadline, announcer = time.monotonic() + timeout, Announcer(f'policy_node in {self.namespace}')
        while not self.action.wait_for_server(timeout_sec=min(0.5, timeout)):
            announcer.look(self._others)
            if reason := give_up():
                raise EpisodeError(reason)
            if time.monotonic() > deadline:
                raise EpisodeError(f'no policy node offers {self.namespace}/execute_instruction after {timeout:.0f} s: '
                                   'is the system running (vgps-run, ros2 launch), in this namespace and domain? '
                                   f'{where_else(self._others())}')

    def _others(self) -> set[str]:
        return {full(namespace, name) for name, namespace in self.node.get_node_names_and_namespaces()}

    def recordings(self) -> str:
        """Return the folder that episodes are recorded into, '' where nobody records."""
        if full(self.namespace, 'recorder_node') not in self._others():
            return ''
        try:
            return str(self.get_parameters('recorder_node', 'output_directory')[0])
        except EpisodeError:
            return ''

    def _complete(self, future, timeout: float, what: str):
        self.executor.spin_until_future_complete(future, timeout)
        if not future.done():
            raise EpisodeError(f'no answer from {what} within {timeout:.0f} s')
        return future.result()

    def _service(self, kind, name: str):
        """Return the client of a service of this namespace; it is kept, for finding it takes a moment."""
        if name not in self._services:
            self._services[name] = self.node.create_client(kind, name)
        if not self._services[name].wait_for_service(timeout_sec=10.0):
            raise EpisodeError(f'{self.namespace}/{name} is not there: is the node running?')
        return self._services[name]

    def get_parameters(self, node_name: str, *names: str) -> list:
        """Return values of a node's parameters.

        Raises:
            EpisodeError: the node does not answer.

        """
        service = self._service(GetParameters, f'{node_name}/get_parameters')
        answer = self._complete(service.call_async(GetParameters.Request(names=list(names))), 10.0, node_name)
        return [Parameter.from_parameter_msg(ParameterMessage(name=name, value=value)).value
                for name, value in zip(names, answer.values)]

    def set_parameters(self, node_name: str, **values) -> None:
        """Set live parameters of a node.

        Raises:
            EpisodeError: the node does not answer or rejects a value.

        """
        service = self._service(SetParameters, f'{node_name}/set_parameters')
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        answer = self._complete(service.call_async(request), 10.0, node_name)
        for name, result in zip(values, answer.results):
            if not result.successful:
                raise EpisodeError(f'{node_name} rejects {name} = {values[name]}: {result.reason}')

    def run_simulated(self, task: str, seed: int, attempts: int = 5, **goal) -> ExecuteInstruction.Result:
        """Run one episode of a simulated task, again where it did not begin: a starved machine may disturb the reset.

        Raises:
            EpisodeError: as ``run``, or the episode did not begin in any attempt.

        """
        for _ in range(attempts):
            result = self.run(task=task, seed=seed, **goal)
            if result.episode_id:
                return result
            time.sleep(1.0)  # whatever keeps the machine busy may be over
        raise EpisodeError(f'the episode did not begin in {attempts} attempts: {result.message}')

    def run(self, instruction: str = '', task: str = '', seed: int = 0, max_steps: int = 0, reset: bool = True,
            on_feedback=lambda feedback: None) -> ExecuteInstruction.Result:
        """Run one episode to its end and return the action's result; without episode_id it did not begin.

        A ``KeyboardInterrupt`` cancels it and is raised again once the policy node has confirmed.

        Raises:
            EpisodeError: the goal was refused, or the policy node is gone.

        """
        began = time.time()
        goal = ExecuteInstruction.Goal(instruction=instruction, task=task, seed=seed, max_steps=max_steps, reset=reset)
        sending = self.action.send_goal_async(goal, feedback_callback=lambda m: on_feedback(m.feedback))
        handle = self._complete(sending, 30.0, 'execute_instruction')
        if not handle.accepted:
            raise EpisodeError('the policy node refused the episode: another one is running, or a part is not ready '
                               '(its log says which)')
        finished = handle.get_result_async()
        serving = self._servers()
        try:
            missing = 0
            with remembered_interrupt() as check:
                while not finished.done():
                    self.executor.spin_until_future_complete(finished, 1.0)
                    check()
                    # known once its DDS lease ends; a starved machine may lose sight of it for a moment
                    there = serving & self._servers() if serving else self.action.server_is_ready()
                    missing = 0 if there else missing + 1
                    if missing >= GONE and not finished.done():
                        raise EpisodeError(f'{self._who_ended(began) or "the policy node is gone"}; the arm holds. '
                                           'See its log, then start it again')
            answer = finished.result()
        except KeyboardInterrupt:
            self._complete(handle.cancel_goal_async(), 5.0, 'cancel')
            self._complete(finished, 10.0, 'execute_instruction')
            raise
        if answer.status == GoalStatus.STATUS_UNKNOWN:
            raise EpisodeError('the policy node lost the episode')
        patience = NOTED_WITHIN if ' lost: ' in answer.result.message else 0.0
        if answer.result.outcome == Outcome.ABORTED and (who := self._who_ended(began, patience)):
            answer.result.message = f'{answer.result.message} ({who})'
        return answer.result

    def _servers(self) -> set[bytes]:
        """Return who offers the action now: a policy node that was started again knows nothing of the goal before."""
        return {bytes(info.endpoint_gid) for info in self.node.get_publishers_info_by_topic(
            f'{self.namespace}/execute_instruction/_action/status')}

    def _who_ended(self, since: float, patience: float = 0.0) -> str:
        """Return which node of a system on this machine ended first: the others may have been ended because of it."""
        deadline = time.monotonic() + patience
        while not (ends := run_files.ends_since(self.namespace, since)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return run_files.describe_ends(dict(list(ends.items())[:1]))


def progress(feedback) -> None:
    """Show the step, the value and what went wrong, on one line."""
    usual = ('', 'STEERED', 'CONTROL_FIRST', 'CONTROL_RANDOM', 'READY', 'MOVING', 'ACCEPTED')
    notes = ', '.join(note for note in (feedback.steering, feedback.controller) if note.split(':')[0] not in usual)
    line = f'  step {feedback.step:3d}   value {feedback.value:7.2f}   candidate {feedback.chosen:3d}   {notes}'
    end = '\r' if sys.stdout.isatty() else '\n'
    print(f'{line:100.100}', end=end, flush=True)
