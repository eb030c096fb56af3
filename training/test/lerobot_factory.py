"""Write small LeRobot data sets, v2.1 and v3.0, with real video files, and edit them as other tools do."""
import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS, CAMERA = 5, 'observation.images.front'
ROW = f'videos/{CAMERA}/'


def video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=FPS, options={'crf': '1', 'g': '2'})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = 'yuv420p'
        for image in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def info(folder, version, data_path, video_path):
    (folder / 'meta').mkdir(parents=True)
    (folder / 'meta/info.json').write_text(json.dumps({
        'codebase_version': version, 'fps': FPS, 'chunks_size': 1000, 'data_path': data_path, 'video_path': video_path,
        'features': {CAMERA: {'dtype': 'video'}, 'action': {'dtype': 'float32', 'shape': [7]}}}))


def table(index, actions, task, success=None):
    columns = {'action': [a.tolist() for a in actions], 'episode_index': [index] * len(actions),
               'task_index': [task] * len(actions)}
    if success is not None:
        columns['next.success'] = [False] * (len(actions) - 1) + [success]
    return pa.table(columns)


def write_v2(folder, episodes, tasks):
    """Write episodes of (frames, actions, task index, success)."""
    info(folder, 'v2.1', 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
         'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4')
    (folder / 'meta/tasks.jsonl').write_text(
        ''.join(json.dumps({'task_index': i, 'task': t}) + '\n' for i, t in enumerate(tasks)))
    (folder / 'meta/episodes.jsonl').write_text(
        ''.join(json.dumps({'episode_index': i, 'length': len(e[1])}) + '\n' for i, e in enumerate(episodes)))
    for i, (frames, actions, task, success) in enumerate(episodes):
        path = folder / f'data/chunk-000/episode_{i:06d}.parquet'
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(i, actions, task, success), path)
        video(folder / f'videos/chunk-000/{CAMERA}/episode_{i:06d}.mp4', frames)
    return folder


def write_v3(folder, episodes, tasks):
    """Write the same as one table and one video."""
    info(folder, 'v3.0', 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
         'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4')
    pq.write_table(pa.table({'task_index': list(range(len(tasks))), '__index_level_0__': list(tasks)}),
                   folder / 'meta/tasks.parquet')
    rows, at = [], 0
    for i, (frames, _, _, _) in enumerate(episodes):
        rows.append({'episode_index': i, 'data/chunk_index': 0, 'data/file_index': 0,
                     f'videos/{CAMERA}/chunk_index': 0, f'videos/{CAMERA}/file_index': 0,
                     f'videos/{CAMERA}/from_timestamp': at / FPS,
                     f'videos/{CAMERA}/to_timestamp': (at + len(frames)) / FPS})
        at += len(frames)
    for path, content in ((folder / 'meta/episodes/chunk-000/file-000.parquet', pa.Table.from_pylist(rows)),
                          (folder / 'data/chunk-000/file-000.parquet',
                           pa.concat_tables(table(i, e[1], e[2], e[3]) for i, e in enumerate(episodes)))):
        path.parent.mkdir(parents=True)
        pq.write_table(content, path)
    video(folder / f'videos/{CAMERA}/chunk-000/file-000.mp4', np.concatenate([e[0] for e in episodes]))
    return folder


def grey(*levels):
    return np.stack([np.full((48, 64, 3), level, np.uint8) for level in levels])


def moves(count, seed=0):
    actions = np.random.default_rng(seed).normal(0, 0.01, (count, 7)).astype(np.float32)
    actions[:, 6] = np.arange(count) % 2
    return actions


def episodes(*lengths):
    return [(grey(*(20 + 50 * e + 5 * np.arange(n))), moves(n, e), 0, None) for e, n in enumerate(lengths)]


def levels(episode):
    return [round(float(frame.mean())) for frame in episode.frames]


def edit(path, change):
    """Rewrite a JSON or Parquet file through `change`."""
    if path.suffix == '.json':
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
    else:
        rows = pq.read_table(path).to_pylist()
        pq.write_table(pa.Table.from_pylist(change(rows) or rows), path)


def edit_info(folder, change):
    edit(folder / 'meta/info.json', change)


def edit_windows(folder, change):
    def each(rows):
        for row in rows:
            start, stop = change(row['episode_index'], row[f'{ROW}from_timestamp'], row[f'{ROW}to_timestamp'])
            row[f'{ROW}from_timestamp'], row[f'{ROW}to_timestamp'] = start, stop
    edit(folder / 'meta/episodes/chunk-000/file-000.parquet', each)


def edit_lines(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(line)
    path.write_text('\n'.join(map(json.dumps, lines)))
